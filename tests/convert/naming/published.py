"""What published PyTorch modules compute, in words of ours, on tensors of the names that they have.

A restatement has modules and buffers of the published names, and one walk through them that its
settings steer: no code of the published modules is in here. Sinusoids are computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

PAD, WORDS, MOST = 1, (23, 19), 40
D, F, H, LAYERS = 12, 20, 3, {"encoder": 1, "decoder": 2}


class StdNorm(nn.Module):
    """The mean taken off, divided by the unbiased deviation plus epsilon; ``count`` numbers."""

    def __init__(self, names: tuple[str, str], count: int = D, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.names, self.epsilon = names, epsilon
        for name, start in zip(names, (torch.ones, torch.zeros), strict=True):
            setattr(self, name, nn.Parameter(start(count)))

    def forward(self, x: Tensor) -> Tensor:
        scale, bias = (getattr(self, name) for name in self.names)
        deviation = ((x - x.mean(-1, keepdim=True)) ** 2).sum(-1, keepdim=True) / (x.shape[-1] - 1)
        return scale * (x - x.mean(-1, keepdim=True)) / (deviation.sqrt() + self.epsilon) + bias


class GammaNorm(nn.Module):
    """LayerNorm whose tensors are gamma and beta."""

    def __init__(self, epsilon: float = 1e-12) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(D)), nn.Parameter(torch.zeros(D))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, (D,), self.gamma, self.beta, self.epsilon)


def sinusoids(rows: int, exponents: list[float] | None = None) -> Tensor:
    """Sines and cosines in turn, float64, (rows, D); ``exponents`` of 10000, one a column."""
    powers = exponents or [column // 2 * 2 / D for column in range(D)]
    angles = np.arange(rows)[:, None] / 10000.0 ** np.array(powers)
    return torch.from_numpy(np.where(np.arange(D) % 2, np.cos(angles), np.sin(angles)))


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, factor: float) -> Tensor:
    """Heads side by side, (B, Q, HA), (B, K, HA); ``seen`` (B, 1, Q or 1, K)."""
    q, k, v = (x.unflatten(-1, (H, -1)).transpose(1, 2) for x in (q, k, v))
    scores = (q @ k.transpose(2, 3) * factor).masked_fill(~seen, -1e20)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class Published(nn.Module):
    """An encoder-decoder under published names; ``{}`` stands for the number of a layer."""

    tables = ("encoder.embedding", "decoder.embedding")
    positions: tuple[str, str] | None = None  # learned tables
    buffers: tuple[str, ...] = ()
    layers = ("encoder.layers.{}", "decoder.layers.{}")
    attentions = (("self_attention",), ("self_attention", "cross_attention"))
    projections = ("q", "k", "v", "o")
    feed_forward = ("ffn.0", "ffn.1"), ("ffn.0", "ffn.1")
    norms = ("norm1", "norm2"), ("norm1", "norm2", "norm3")
    first_norms: tuple[str, str] | None = None  # on what the embeddings give
    last_norms: tuple[str, str] | None = None
    output = "decoder.out"
    pre, scale, output_factor = False, math.sqrt(D), 1.0
    factor, heads_dim = 1 / math.sqrt(D // H), D
    biases = (True, True, True)  # of queries, keys and values; of what follows them; of the output
    flags: dict = {}  # what a user has to say of it beside heads and ids

    def __init__(self, words: tuple[int, int] = WORDS) -> None:
        super().__init__()
        self.words = words
        for half, count in zip(LAYERS, words, strict=True):
            self._build(half, count)
        self.place(self.output, nn.Linear(D, words[1], bias=self.biases[2]))
        for name in self.buffers:
            parent, leaf = self.parent(name)
            parent.register_buffer(leaf, self.table().float())

    def _build(self, half: str, count: int) -> None:
        at = list(LAYERS).index(half)
        self.place(self.tables[at], nn.Embedding(count, D))
        if self.positions:
            self.place(self.positions[at], nn.Embedding(MOST, D))
        for norms in filter(None, (self.first_norms, self.last_norms)):
            self.place(norms[at], self.norm())
        for i in range(LAYERS[half]):
            prefix = self.layers[at].format(i)
            for name in self.attentions[at]:
                self.build_attention(f"{prefix}.{name}")
            for name, sizes in zip(self.feed_forward[at], ((D, F), (F, D)), strict=True):
                self.place(f"{prefix}.{name}", nn.Linear(*sizes))
            for name in self.norms[at]:
                self.place(f"{prefix}.{name}", self.norm())

    def build_attention(self, prefix: str) -> None:
        wide = self.heads_dim
        for name in self.projections[:3]:
            self.place(f"{prefix}.{name}", nn.Linear(D, wide, bias=self.biases[0]))
        self.place(f"{prefix}.{self.projections[3]}", nn.Linear(wide, D, bias=self.biases[1]))

    def norm(self) -> nn.Module:
        return nn.LayerNorm(D, 1e-5)

    def table(self) -> Tensor:
        """The buffer of sinusoids, as it lies in files."""
        return sinusoids(MOST)[None]

    def parent(self, path: str) -> tuple[nn.Module, str]:
        module, (*parts, leaf) = self, path.split(".")
        for part in parts:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module._modules[part]
        return module, leaf

    def place(self, path: str, module: nn.Module) -> None:
        parent, leaf = self.parent(path)
        parent.add_module(leaf, module)

    def at(self, path: str) -> Callable[[Tensor], Tensor]:
        return self.get_submodule(path)

    def added(self, at: int, length: int) -> Tensor:
        """What is added to embeddings, (length, D)."""
        if self.positions:
            return self.at(self.positions[at])(torch.arange(length))
        return sinusoids(length)

    def attention(self, path: str, x: Tensor, keys: Tensor, seen: Tensor) -> Tensor:
        q, k, v, out = (self.at(f"{path}.{name}") for name in self.projections)
        return out(attend(q(x), k(keys), v(keys), seen, self.factor))

    def feed(self, one: str, two: str, x: Tensor) -> Tensor:
        return self.at(two)(self.at(one)(x).relu())

    def walk(self, at: int, ids: Tensor, seen: Tensor, *memory: Tensor) -> Tensor:
        """One half: token ids and what may be seen; the decoder's is given memory and its mask."""
        x = self.at(self.tables[at])(ids) * self.scale + self.added(at, ids.shape[1])
        x = self.at(self.first_norms[at])(x) if self.first_norms else x
        for i in range(list(LAYERS.values())[at]):
            prefix = self.layers[at].format(i)
            self_name, *cross = (f"{prefix}.{name}" for name in self.attentions[at])
            steps = [lambda y, name=self_name: self.attention(name, y, y, seen)]
            steps += [lambda y, name=name: self.attention(name, y, *memory) for name in cross]
            inner = [f"{prefix}.{name}" for name in self.feed_forward[at]]
            steps.append(lambda y, inner=inner: self.feed(*inner, y))
            for step, name in zip(steps, self.norms[at], strict=True):
                norm = self.at(f"{prefix}.{name}")
                x = x + step(norm(x)) if self.pre else norm(x + step(x))
        return self.at(self.last_norms[at])(x) if self.last_norms else x

    @torch.no_grad()
    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        seen = (source != PAD)[:, None, None]
        ahead = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).tril()
        memory = self.walk(0, source, seen)
        states = self.walk(1, target, (target != PAD)[:, None, None] & ahead, memory, seen)
        return self.at(self.output)(states * self.output_factor)


class Annotated(Published):
    tables = "src_embed.0.lut", "tgt_embed.0.lut"
    buffers = "src_embed.1.pe", "tgt_embed.1.pe"
    attentions = ("self_attn",), ("self_attn", "src_attn")
    projections = tuple(f"linears.{i}" for i in range(4))
    feed_forward = (("feed_forward.w_1", "feed_forward.w_2"),) * 2
    norms = tuple(tuple(f"sublayer.{i}.norm" for i in range(n)) for n in (2, 3))
    last_norms = "encoder.norm", "decoder.norm"
    output, pre = "generator.proj", True

    def norm(self) -> nn.Module:
        return StdNorm(("a_2", "b_2"))


class Bentrevett(Published):
    """Its scales were rounded to float32."""

    tables = "encoder.tok_embedding", "decoder.tok_embedding"
    positions = "encoder.pos_embedding", "decoder.pos_embedding"
    attentions = ("self_attention",), ("self_attention", "encoder_attention")
    projections = "fc_q", "fc_k", "fc_v", "fc_o"
    feed_forward = (("positionwise_feedforward.fc_1", "positionwise_feedforward.fc_2"),) * 2
    norms = (
        ("self_attn_layer_norm", "ff_layer_norm"),
        ("self_attn_layer_norm", "enc_attn_layer_norm", "ff_layer_norm"),
    )
    output = "decoder.fc_out"
    scale, factor = float(np.sqrt(np.float32(D))), 1 / float(np.sqrt(np.float32(D // H)))


class Jadore(Published):
    """d_k is 5; tables are shared and the projection is scaled, unless a subclass has it so."""

    tables = "encoder.src_word_emb", "decoder.trg_word_emb"
    buffers = "encoder.position_enc.pos_table", "decoder.position_enc.pos_table"
    layers = "encoder.layer_stack.{}", "decoder.layer_stack.{}"
    attentions = ("slf_attn",), ("slf_attn", "enc_attn")
    projections = "w_qs", "w_ks", "w_vs", "fc"
    feed_forward = (("pos_ffn.w_1", "pos_ffn.w_2"),) * 2
    norms = (
        ("slf_attn.layer_norm", "pos_ffn.layer_norm"),
        ("slf_attn.layer_norm", "enc_attn.layer_norm", "pos_ffn.layer_norm"),
    )
    first_norms = "encoder.layer_norm", "decoder.layer_norm"
    output, biases = "trg_word_prj", (False, False, False)
    scale, output_factor, heads_dim, factor = 1.0, D**-0.5, 5 * H, 5**-0.5
    shared = (True, True)  # target table with projection, source with target table

    def __init__(self) -> None:
        super().__init__((19, 19) if self.shared[1] else WORDS)
        source, target, output = map(self.at, (*self.tables, self.output))
        if self.shared[0]:
            output.weight = target.weight
        if self.shared[1]:
            source.weight = target.weight

    def norm(self) -> nn.Module:
        return nn.LayerNorm(D, 1e-6)


class JadoreScaledEmbeddings(Jadore):
    scale, output_factor = math.sqrt(D), 1.0
    shared = (True, False)
    flags = {
        "embedding_scale": math.sqrt(D),
        "output_scale": 1.0,
        "tied_embeddings": "target_output",
    }


class JadoreNothingShared(Jadore):
    output_factor = 1.0
    shared = (False, False)
    flags = {"tied_embeddings": "none"}


class Hyunwoongko(Published):
    tables = "encoder.emb.tok_emb", "decoder.emb.tok_emb"
    attentions = ("attention",), ("self_attention", "enc_dec_attention")
    projections = "w_q", "w_k", "w_v", "w_concat"
    feed_forward = (("ffn.linear1", "ffn.linear2"),) * 2
    output, scale = "decoder.linear", 1.0
    flags = {"max_length": MOST}

    def norm(self) -> nn.Module:
        return GammaNorm()


class Hkproj(Published):
    tables = "src_embed.embedding", "tgt_embed.embedding"
    buffers = "src_pos.pe", "tgt_pos.pe"
    attentions = ("self_attention_block",), ("self_attention_block", "cross_attention_block")
    projections = "w_q", "w_k", "w_v", "w_o"
    feed_forward = (("feed_forward_block.linear_1", "feed_forward_block.linear_2"),) * 2
    norms = tuple(tuple(f"residual_connections.{i}.norm" for i in range(n)) for n in (2, 3))
    last_norms = "encoder.norm", "decoder.norm"
    output, pre, biases, numbers = "projection_layer.proj", True, (False, False, True), D

    def norm(self) -> nn.Module:
        return StdNorm(("alpha", "bias"), self.numbers)


class HkprojAtFirst(Hkproj):
    biases, numbers = (True, True, True), 1


class SamLynnEvans(Published):
    """Every column of its table has a frequency of its own; the module computes with the buffer."""

    tables = "encoder.embed.embed", "decoder.embed.embed"
    buffers = "encoder.pe.pe", "decoder.pe.pe"
    attentions = ("attn",), ("attn_1", "attn_2")
    projections = "q_linear", "k_linear", "v_linear", "out"
    feed_forward = (("ff.linear_1", "ff.linear_2"),) * 2
    norms = ("norm_1", "norm_2"), ("norm_1", "norm_2", "norm_3")
    last_norms = "encoder.norm", "decoder.norm"
    output, pre = "out", True

    def norm(self) -> nn.Module:
        return StdNorm(("alpha", "bias"))

    def table(self) -> Tensor:
        return sinusoids(MOST, [2 * column / D for column in range(D)])[None]

    def added(self, at: int, length: int) -> Tensor:
        return self.get_buffer(self.buffers[at])[0, :length]


class D2L(Published):
    layers = "encoder.blks.block{}", "decoder.blks.block{}"
    attentions = ("attention",), ("attention1", "attention2")
    projections = "W_q", "W_k", "W_v", "W_o"
    feed_forward = (("ffn.dense1", "ffn.dense2"),) * 2
    norms = tuple(tuple(f"addnorm{i}.ln" for i in range(1, n)) for n in (3, 4))
    output, biases = "decoder.dense", (False, False, True)
    flags = {"max_length": MOST}


class Aladdinpersson(Published):
    tables = "encoder.word_embedding", "decoder.word_embedding"
    positions = "encoder.position_embedding", "decoder.position_embedding"
    attentions = ("attention",), ("attention", "transformer_block.attention")
    projections = "queries", "keys", "values", "fc_out"
    feed_forward = tuple(
        (f"{inside}feed_forward.0", f"{inside}feed_forward.2")
        for inside in ("", "transformer_block.")
    )
    norms = ("norm1", "norm2"), ("norm", "transformer_block.norm1", "transformer_block.norm2")
    output, scale, factor = "decoder.fc_out", 1.0, D**-0.5


class AladdinpersonAtFirst(Aladdinpersson):
    """One block for all heads."""

    def build_attention(self, prefix: str) -> None:
        for name in self.projections[:3]:
            self.place(f"{prefix}.{name}", nn.Linear(D // H, D // H, bias=False))
        self.place(f"{prefix}.{self.projections[3]}", nn.Linear(D, D))

    def attention(self, path: str, x: Tensor, keys: Tensor, seen: Tensor) -> Tensor:
        *three, out = (self.at(f"{path}.{name}") for name in self.projections)
        given = (x, keys, keys)
        q, k, v = (
            block(y.unflatten(-1, (H, -1))).flatten(2)
            for block, y in zip(three, given, strict=True)
        )
        return out(attend(q, k, v, seen, self.factor))


class TranslationTutorial(nn.Module):
    """A torch.nn.Transformer, sequences first, and what stands around it."""

    flags: dict = {}

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(D, H, LAYERS["encoder"], LAYERS["decoder"], F)
        self.generator = nn.Linear(D, WORDS[1])
        for name, count in zip(("src_tok_emb", "tgt_tok_emb"), WORDS, strict=True):
            self.add_module(name, nn.ModuleDict({"embedding": nn.Embedding(count, D)}))
        self.positional_encoding = nn.Module()
        self.positional_encoding.register_buffer("pos_embedding", sinusoids(MOST)[:, None].float())

    @torch.no_grad()
    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """In PyTorch's masks True is blocked."""
        given = []
        for module, ids in ((self.src_tok_emb, source), (self.tgt_tok_emb, target)):
            x = module["embedding"](ids.T) * math.sqrt(D)
            given.append(x + sinusoids(len(x))[:, None])
        ahead = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        source_pad, target_pad = source == PAD, target == PAD
        states = self.transformer(
            *given, None, ahead, None, source_pad, target_pad, source_pad
        )  # fmt: skip
        return self.generator(states).transpose(0, 1)


MODULES: dict[str, list[type[nn.Module]]] = {
    "annotated-transformer": [Annotated],
    "bentrevett-seq2seq": [Bentrevett],
    "jadore801120": [Jadore, JadoreScaledEmbeddings, JadoreNothingShared],
    "hyunwoongko": [Hyunwoongko],
    "hkproj": [Hkproj, HkprojAtFirst],
    "samlynnevans": [SamLynnEvans],
    "d2l": [D2L],
    "aladdinpersson": [Aladdinpersson, AladdinpersonAtFirst],
    "pytorch-translation-tutorial": [TranslationTutorial],
}


def made(kind: type[nn.Module]) -> nn.Module:
    """A module with random numbers of float32 in every tensor, which computes in float64."""
    torch.manual_seed(0)
    module = kind()
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, float("norm" in name and parameter.ndim == 1) * 0.5, 0.4)
    return module.double().eval()
