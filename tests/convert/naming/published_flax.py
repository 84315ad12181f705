"""What published Linen modules compute, in words of ours, with parameters of their names."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

D, F, H, WORDS, LAYERS, MOST = 12, 20, 3, (23, 19), (1, 2), 40
Masks = tuple[jax.Array, jax.Array]


def interleaved(rows: int) -> np.ndarray:
    column = np.arange(D)
    angles = np.arange(rows)[:, None] / 10000.0 ** (column // 2 * 2 / D)
    return np.where(column % 2, np.cos(angles), np.sin(angles))


def concatenated(rows: int) -> np.ndarray:
    half = D // 2
    angles = np.arange(rows)[:, None] * 10000.0 ** (-np.arange(half) / (half - 1))
    return np.concatenate([np.sin(angles), np.cos(angles)], -1)


def masks(source: jax.Array, target: jax.Array, pad: int) -> Masks:
    ahead = nn.make_causal_mask(target, dtype=bool)
    return (source != pad)[:, None, None], (target != pad)[:, None, None] & ahead


class PreNormLayer(nn.Module):
    """A layer of examples/wmt; ``self_attention`` is the name that its first attention has."""

    self_attention: str
    crossing: bool

    @nn.compact
    def __call__(self, x, seen, *memory):
        attention = lambda name: nn.MultiHeadDotProductAttention(H, use_bias=False, name=name)  # noqa: E731
        x = x + attention(self.self_attention)(nn.LayerNorm(name="LayerNorm_0")(x), mask=seen)
        if self.crossing:
            known = self.self_attention == "MultiHeadDotProductAttention_0"
            cross = attention(f"MultiHeadDotProductAttention_{int(known)}")
            states, mask = memory
            x = x + cross(nn.LayerNorm(name="LayerNorm_1")(x), states, mask=mask)
        last = nn.LayerNorm(name=f"LayerNorm_{1 + self.crossing}")(x)
        return x + MlpBlock(name="MlpBlock_0")(last)


class MlpBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(D, name="Dense_1")(nn.relu(nn.Dense(F, name="Dense_0")(x)))


class WmtHalf(nn.Module):
    at: int
    table: Callable | None
    via_embedding: bool
    self_attention: str

    @nn.compact
    def __call__(self, ids, seen, *memory):
        embed = self.table or nn.Embed(WORDS[self.at], D, name="Embed_0")
        x = embed(ids) + concatenated(ids.shape[1])
        block, last = (
            ("encoderblock", "encoder_norm"),
            ("encoderdecoderblock", "encoderdecoder_norm"),
        )[self.at]
        for i in range(LAYERS[self.at]):
            layer = PreNormLayer(self.self_attention, bool(self.at), name=f"{block}_{i}")
            x = layer(x, seen, *memory)
        x = nn.LayerNorm(name=last)(x)
        if not self.at:
            return x
        return embed.attend(x) / math.sqrt(D) if self.via_embedding else nn.Dense(
            WORDS[1], name="logitdense"
        )(x)  # fmt: skip


class Wmt(nn.Module):
    """examples/wmt of Flax: 0 is padding, and the decoder is given targets shifted by a 0."""

    shared: bool = True
    via_embedding: bool = True
    self_attention: str = "MultiHeadDotProductAttention_0"

    def setup(self):
        if self.shared:
            self.shared_embedding = nn.Embed(WORDS[1], D)
        table = self.shared_embedding if self.shared else None
        rest = self.via_embedding, self.self_attention
        self.encoder, self.decoder = WmtHalf(0, table, *rest), WmtHalf(1, table, *rest)

    def __call__(self, source, target):
        """``target`` as the module is given it, without what starts the decoder."""
        given = jnp.pad(target[:, :-1], ((0, 0), (1, 0)))
        seen, ahead = masks(source, target, 0)
        return self.decoder(given, ahead, self.encoder(source, seen), seen)


class D2LAttention(nn.Module):
    bias: bool = False

    @nn.compact
    def __call__(self, x, keys, seen):
        names = ("W_q", x), ("W_k", keys), ("W_v", keys)
        q, k, v = (
            nn.Dense(D, use_bias=self.bias, name=name)(y).reshape(*y.shape[:2], H, -1)
            for name, y in names
        )
        mixed = nn.dot_product_attention(q, k, v, mask=seen)
        return nn.Dense(D, use_bias=self.bias, name="W_o")(mixed.reshape(x.shape))


class FusedAttention(nn.Module):
    """Queries, keys and values of a head lie beside each other in one projection."""

    @nn.compact
    def __call__(self, x, keys, seen):
        del keys
        whole = nn.Dense(3 * D, name="qkv_proj")(x).reshape(*x.shape[:2], H, -1)
        mixed = nn.dot_product_attention(*jnp.split(whole, 3, -1), mask=seen)
        return nn.Dense(D, name="o_proj")(mixed.reshape(x.shape))


class AddNorm(nn.Module):
    @nn.compact
    def __call__(self, x, y):
        return nn.LayerNorm()(x + y)


class FeedForward(nn.Module):
    names: tuple[str, str]

    @nn.compact
    def __call__(self, x):
        one, two = self.names
        return nn.Dense(D, name=two)(nn.relu(nn.Dense(F, name=one)(x)))


class PostNormLayer(nn.Module):
    attentions: tuple[str, ...]
    bias: bool

    @nn.compact
    def __call__(self, x, seen, *memory):
        given = [(x, seen), memory]
        for number, name in enumerate(self.attentions):
            keys, mask = (x, seen) if number == 0 else given[1]
            attention = D2LAttention(self.bias, name=name)
            x = AddNorm(name=f"addnorm{number + 1}")(x, attention(x, keys, mask))
        last = f"addnorm{len(self.attentions) + 1}"
        return AddNorm(name=last)(x, FeedForward(("dense1", "dense2"), name="ffn")(x))


class FusedLayer(nn.Module):
    """The encoder block of the uvadlc tutorial; in the list of its linears stand things without
    parameters.
    """

    def setup(self):
        self.self_attn = FusedAttention()
        self.linear = [nn.Dense(F), nn.Dropout(0.1), nn.relu, nn.Dense(D)]
        self.norm1, self.norm2 = nn.LayerNorm(), nn.LayerNorm()

    def __call__(self, x, seen):
        x = self.norm1(x + self.self_attn(x, x, seen))
        return self.norm2(x + self.linear[3](nn.relu(self.linear[0](x))))


class PostNormHalf(nn.Module):
    at: int
    fused: bool

    @nn.compact
    def __call__(self, ids, seen, *memory):
        x = nn.Embed(WORDS[self.at], D, name="embedding")(ids) * math.sqrt(D)
        x = x + interleaved(ids.shape[1])
        names = (("attention",), ("attention1", "attention2"))[self.at]
        for i in range(LAYERS[self.at]):
            if self.fused and not self.at:
                layer = FusedLayer(name=f"layers_{i}")
            else:
                layer = PostNormLayer(names, self.fused, name=f"blks_{i}")
            x = layer(x, seen, *memory)
        return nn.Dense(WORDS[1], name="dense")(x) if self.at else x


class D2L(nn.Module):
    """``fused``: with the encoder of the uvadlc tutorial, whose attention has biases."""

    fused: bool = False
    pad: int = 1

    def setup(self):
        self.encoder, self.decoder = (PostNormHalf(at, self.fused) for at in (0, 1))

    def __call__(self, source, target):
        seen, ahead = masks(source, target, self.pad)
        return self.decoder(target, ahead, self.encoder(source, seen), seen)


OLD = "SelfAttention_0"
SHARINGS = [(True, True), (False, True), (True, False), (False, False)]
MODULES: dict[str, list[nn.Module]] = {
    "flax-wmt": [Wmt(*sharing) for sharing in SHARINGS],
    "flax-wmt-self-attention": [Wmt(*sharing, OLD) for sharing in SHARINGS[::3]],
    "d2l-flax": [D2L()],
}


def parameters(module: nn.Module) -> dict:
    """Random float32 numbers for every parameter, as nested dicts."""
    ids = jnp.ones((1, 4), jnp.int32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), ids, ids)["params"]
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: draw.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)
