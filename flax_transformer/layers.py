"""The layers of the Transformer in Flax NNX, line for line the twin of torch_transformer/layers.py.

Letters: B batch, S source length, T target length, Q query length, K key length, D hidden_dim,
H num_heads, A head_dim, F inner_dim, V vocabulary. Masks are True where a key may be seen.
Sections are those of Vaswani et al. 2017, "Attention Is All You Need".
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from flax_transformer.cpu.attention import attend, probabilities, transposed, weighted
from flax_transformer.cpu.gradients import relu
from flax_transformer.dropout import Dropout, drop
from flax_transformer.primitives import Embed, LayerNorm, Linear, RMSNorm, StdNorm, whole
from flax_transformer.relative import Bias, Distances, relative_bias
from transformer_spec import RELATIVE, TransformerConfig

KeysValues = tuple[Float[Array, "B H K A"], Float[Array, "B H K A"]]
MemoryKeysValues = tuple[Float[Array, "N H S A"], Float[Array, "N H S A"]]
# The encoder's output, or what a layer makes of it, where that is kept for many calls.
Memory = Float[Array, "N S D"] | MemoryKeysValues
Norm = LayerNorm | RMSNorm | StdNorm

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": relu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_sigmoid": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
    "identity": lambda x: x,
}


def layer_norm(config: TransformerConfig) -> Norm:
    """The config's norm with its epsilon, never a framework's default.

    LayerNorm (Ba et al. 2016), RMSNorm (Zhang and Sennrich 2019), or one by the deviation.
    """
    if config.norm == "rms":
        return RMSNorm(config.hidden_dim, config.norm_epsilon)
    if config.norm == "std":
        return StdNorm(config.hidden_dim, config.norm_epsilon)
    return LayerNorm(config.hidden_dim, config.norm_epsilon)


def padding_mask(real: Bool[Array, "B K"]) -> Bool[Array, "B 1 1 K"]:
    """Every query sees the real tokens only."""
    return never_empty(real[:, None, None, :])


def never_empty(mask: Bool[Array, "B 1 Q K"]) -> Bool[Array, "B 1 Q K"]:
    """Let a query that may see nothing see everything: its output and gradient stay finite."""
    return mask | ~mask.any(-1, keepdims=True)


def look_ahead_mask(Q: int, K: int) -> Bool[Array, "1 1 Q K"]:
    """Query row i sees keys up to K-Q+i: aligned bottom-right, so that Q new rows end at key K."""
    rows = jnp.arange(Q)[:, None] + (K - Q)
    return (jnp.arange(K)[None, :] <= rows)[None, None]


def attention(
    q: Float[Array, "B H Q A"],
    k: Float[Array, "B H K A"],
    v: Float[Array, "B H K A"],
    mask: Bool[Array, "#B 1 #Q K"],
    config: TransformerConfig,
    dropout: Dropout | None,
    bias: Float[Array, "1 H Q K"] | None = None,
) -> Float[Array, "B H Q A"]:
    """Scaled dot-product attention (section 3.2.1); every query sees at least one key.

    A ``bias`` is added to the scores.
    """
    if dropout is None or config.attention_dropout == 0:
        by_head = bool(config.feature_dim)
        return attend(q, k, v, mask, config.attention_scale, bias, by_head)
    weights = probabilities(q, k, mask, config.attention_scale, bias)
    return weighted(drop(weights, config.attention_dropout, dropout), v)


def relative_table(config: TransformerConfig) -> Embed:
    """A table (R, H) of relative positions; its numbers are given."""
    return Embed(config.relative_buckets, config.num_heads)


class KeyValueCache:
    """One layer's keys and values of the tokens decoded so far, in arrays of fixed length.

    ``keys`` (B, H, A, L) lie transposed.
    """

    def __init__(self, keys: Array, values: Array, length: int | Array) -> None:
        self.keys, self.values, self.length = keys, values, length

    def append(self, keys: Array, values: Array) -> KeysValues:
        """Write Q new columns after the first ``length`` and return all columns."""
        update = jax.lax.dynamic_update_slice
        self.keys = update(self.keys, transposed(keys), (0, 0, 0, self.length))
        self.values = update(self.values, values, (0, 0, self.length, 0))
        return transposed(self.keys), self.values


class MultiHeadAttention(nnx.Module):
    """Multi-head attention (section 3.2.2); heads are split by reshape.

    Self-attention of a half with relative ``positions`` may have a table of its own.
    """

    def __init__(self, config: TransformerConfig, positions: str = "none") -> None:
        D, heads = config.hidden_dim, config.heads_dim
        self.config = config
        self.fcQ = Linear(D, heads, config.attention_bias)
        self.fcK = Linear(D, heads, config.key_bias)
        self.fcV = Linear(D, heads, config.attention_bias)
        self.fcOut = Linear(heads, D, config.attention_output_bias)
        own_table = config.relative_per_layer and positions == RELATIVE
        self.relative_bias = relative_table(config) if own_table else None

    def split_heads(self, x: Float[Array, "B K X"]) -> Float[Array, "B H K A"]:
        B, K, _ = x.shape
        return x.reshape(B, K, self.config.num_heads, self.config.head_dim).swapaxes(1, 2)

    def keys_values(self, memory: Float[Array, "B K D"]) -> KeysValues:
        return self.split_heads(self.fcK(memory)), self.split_heads(self.fcV(memory))

    def __call__(
        self,
        x: Float[Array, "B Q D"],
        keys_values: KeysValues,
        mask: Bool[Array, "#B 1 #Q K"],
        dropout: Dropout | None = None,
        bias: Bias = None,
    ) -> Float[Array, "B Q D"]:
        q = self.split_heads(self.fcQ(x))  # (B, Q, D) -> (B, H, Q, A)
        context = attention(q, *keys_values, mask, self.config, dropout, self.added(bias))
        heads = context.swapaxes(1, 2).reshape(*x.shape[:2], -1)  # (B, H, Q, A) -> (B, Q, H x A)
        return self.fcOut(heads)

    def added(self, bias: Bias) -> Float[Array, "1 H Q K"] | None:
        """What is added to scores; this attention's own table says it of distances."""
        if not isinstance(bias, Distances):
            return bias
        assert self.relative_bias is not None
        return relative_bias(whole(self.relative_bias.embedding), bias)


class FeedForward(nnx.Module):
    """Position-wise feed-forward network (section 3.3), with a gate or without.

    Gated as in Shazeer 2020, "GLU Variants Improve Transformer".
    """

    def __init__(self, config: TransformerConfig) -> None:
        self.config = config
        self.fc1 = Linear(config.hidden_dim, config.inner_dim, config.ffn_bias)
        self.fc2 = Linear(config.inner_dim, config.hidden_dim, config.ffn_bias)
        gate = Linear(config.hidden_dim, config.inner_dim, config.ffn_bias)
        self.fc3 = gate if config.gated_ffn else None

    def __call__(
        self, x: Float[Array, "B Q D"], dropout: Dropout | None = None
    ) -> Float[Array, "B Q D"]:
        h = ACTIVATIONS[self.config.activation](self.fc1(x))  # (B, Q, D) -> (B, Q, F)
        h = h if self.fc3 is None else h * self.fc3(x)
        return self.fc2(drop(h, self.config.activation_dropout, dropout))


class Layer(nnx.Module):
    """What encoder and decoder layers share: a residual sum around every sub-layer."""

    def __init__(self, config: TransformerConfig) -> None:
        self.config = config

    def before(self, x: Float[Array, "B Q D"], norm: Norm) -> Float[Array, "B Q D"]:
        """What enters a sub-layer: norm(x) if the norm comes before it (section 3.1)."""
        return norm(x) if self.config.norm_position == "pre" else x

    def after(
        self,
        x: Float[Array, "B Q D"],
        h: Float[Array, "B Q D"],
        norm: Norm,
        dropout: Dropout | None,
    ) -> Float[Array, "B Q D"]:
        """The sum of x and what the sub-layer made of it: norm(x + h) if the norm comes after."""
        if self.config.dropout_after_norm:
            return drop(norm(x + h), self.config.dropout, dropout)
        x = x + drop(h, self.config.dropout, dropout)
        return x if self.config.norm_position == "pre" else norm(x)


class EncoderLayer(Layer):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.multiheadattention = MultiHeadAttention(config, config.encoder_positions)
        self.layerNorm1 = layer_norm(config)
        self.ffn = FeedForward(config)
        self.layerNorm2 = layer_norm(config)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        mask: Bool[Array, "B 1 1 S"],
        dropout: Dropout | None = None,
        bias: Bias = None,
    ) -> Float[Array, "B S D"]:
        h = self.before(x, self.layerNorm1)
        keys_values = self.multiheadattention.keys_values(h)
        h = self.multiheadattention(h, keys_values, mask, dropout, bias)
        x = self.after(x, h, self.layerNorm1, dropout)
        h = self.ffn(self.before(x, self.layerNorm2), dropout)
        return self.after(x, h, self.layerNorm2, dropout)


class DecoderLayer(Layer):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.multiheadattention1 = MultiHeadAttention(config, config.decoder_positions)
        self.layerNorm1 = layer_norm(config)
        self.multiheadattention2 = MultiHeadAttention(config)
        self.layerNorm2 = layer_norm(config)
        self.ffn = FeedForward(config)
        self.layerNorm3 = layer_norm(config)

    def __call__(
        self,
        x: Float[Array, "B Q D"],
        mask: Bool[Array, "B 1 Q K"],
        memory: Memory,
        memory_mask: Bool[Array, "N 1 1 S"],
        cache: KeyValueCache | None = None,
        dropout: Dropout | None = None,
        bias: Bias = None,
    ) -> Float[Array, "B Q D"]:
        h = self.attend_self(self.before(x, self.layerNorm1), mask, cache, dropout, bias)
        x = self.after(x, h, self.layerNorm1, dropout)
        h = self.attend_memory(self.before(x, self.layerNorm2), memory, memory_mask, dropout)
        x = self.after(x, h, self.layerNorm2, dropout)
        h = self.ffn(self.before(x, self.layerNorm3), dropout)
        return self.after(x, h, self.layerNorm3, dropout)

    def attend_self(
        self,
        h: Float[Array, "B Q D"],
        mask: Bool[Array, "B 1 Q K"],
        cache: KeyValueCache | None,
        dropout: Dropout | None,
        bias: Bias = None,
    ) -> Float[Array, "B Q D"]:
        keys_values = self.multiheadattention1.keys_values(h)
        keys_values = cache.append(*keys_values) if cache else keys_values
        return self.multiheadattention1(h, keys_values, mask, dropout, bias)

    def attend_memory(
        self,
        h: Float[Array, "B Q D"],
        memory: Memory,
        mask: Bool[Array, "N 1 1 S"],
        dropout: Dropout | None,
    ) -> Float[Array, "B Q D"]:
        # B rows over N sources: the B/N beams of one source are queries of the same memory.
        attention = self.multiheadattention2
        keys_values = memory if isinstance(memory, tuple) else attention.keys_values(memory)
        queries = h.reshape(keys_values[0].shape[0], -1, h.shape[-1])
        return attention(queries, keys_values, mask, dropout).reshape(h.shape)
