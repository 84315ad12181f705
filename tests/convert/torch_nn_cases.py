"""Modules that a user may write around torch.nn.Transformer, their states and settings."""

import math
from dataclasses import dataclass

import torch
from family_checks import assert_round_trip, assert_same_logits, batch, import_source, source_of
from torch import nn

from convert.families.torch_nn.family import TorchTransformer
from transformer_spec import TransformerConfig

FAMILY = TorchTransformer()
PAD = 1
FLAGS = {
    "num_heads": 3,
    "activation": "relu",
    "norm_position": "post",
    "encoder_positions": "sinusoidal",
    "decoder_positions": "sinusoidal",
    "embedding_scale": math.sqrt(15),
    "max_length": 20,
    "pad_id": PAD,
    "unk_id": 0,
    "bos_id": 2,
    "eos_id": 3,
}


@dataclass(frozen=True)
class Case:
    """A user's module: the arguments of its nn.Transformer, and what stands around it."""

    norm_first: bool = False
    activation: str = "relu"
    bias: bool = True
    batch_first: bool = True
    layer_norm_eps: float = 1e-5
    tied: str = "none"
    positions: str = "sinusoidal"
    scale: float = math.sqrt(15)
    embedding_norm: bool = False
    output_bias: bool = True
    final_norm: bool = True

    def flags(self) -> dict:
        told = {
            "activation": self.activation,
            "norm_position": "pre" if self.norm_first else "post",
            "embedding_scale": self.scale,
            "norm_epsilon": self.layer_norm_eps,
        }
        kinds = {f"{half}_positions": self.positions for half in ("encoder", "decoder")}
        flags = FLAGS | told | kinds
        return without(flags, "max_length", *kinds) if self.positions == "learned" else flags

    def module(self) -> "Wrapper":
        return Wrapper(self).double().eval()


CASES = {
    "post relu": Case(),
    "pre gelu": Case(norm_first=True, activation="gelu", tied="target_output"),
    "pre without biases": Case(norm_first=True, bias=False, output_bias=False, tied="all"),
    "post without biases": Case(bias=False, activation="gelu"),
    "sequence first": Case(norm_first=True, batch_first=False, layer_norm_eps=1e-3),
    "learned": Case(positions="learned", scale=1.0, activation="gelu", embedding_norm=True),
    "one table": Case(positions="none", tied="all", scale=1.0),
    "one source and target table": Case(tied="embeddings"),
    "no final norm": Case(final_norm=False, norm_first=True),
}


class Wrapper(nn.Module):
    """What a user writes around nn.Transformer; source words V 11, target words 13, D 15, F 7."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        words = (11, 13) if case.tied in ("none", "target_output") else (13, 13)
        self.src_emb, self.tgt_emb = (nn.Embedding(count, 15) for count in words)
        self.transformer = nn.Transformer(
            15, 3, 3, 2, 7, 0.1, case.activation, None, None, case.layer_norm_eps,
            case.batch_first, case.norm_first, case.bias,
        )  # fmt: skip
        if not case.final_norm:
            self.transformer.encoder.norm = self.transformer.decoder.norm = None
        self.generator = nn.Linear(15, 13, bias=case.output_bias)
        if case.positions == "learned":
            self.src_pos, self.tgt_pos = nn.Embedding(20, 15), nn.Embedding(20, 15)
        if case.embedding_norm:
            self.src_norm, self.tgt_norm = nn.LayerNorm(15), nn.LayerNorm(15)
        randomise(self)
        if case.tied in ("all", "embeddings"):
            self.tgt_emb.weight = self.src_emb.weight
        if case.tied in ("all", "target_output"):
            self.generator.weight = self.tgt_emb.weight

    def embed(self, tokens, table, side):
        x = table(tokens) * self.case.scale
        length = tokens.shape[1]
        if self.case.positions == "learned":
            x = x + getattr(self, f"{side}_pos")(torch.arange(length))
        elif self.case.positions == "sinusoidal":
            x = x + sinusoids(length)
        if self.case.embedding_norm:
            x = getattr(self, f"{side}_norm")(x)
        return x if self.case.batch_first else x.transpose(0, 1)

    @torch.no_grad()
    def forward(self, source, target):
        """(B, S), (B, T) -> (B, T, 13); in PyTorch's masks True is blocked."""
        ahead = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        states = self.transformer(
            self.embed(source, self.src_emb, "src"),
            self.embed(target, self.tgt_emb, "tgt"),
            tgt_mask=ahead,
            src_key_padding_mask=source == PAD,
            tgt_key_padding_mask=target == PAD,
            memory_key_padding_mask=source == PAD,
        )
        logits = self.generator(states)
        return logits if self.case.batch_first else logits.transpose(0, 1)


def sinusoids(length: int) -> torch.Tensor:
    """sin and cos of p / 10000^(2i/15) in turn, worked out entry by entry."""
    rows = [
        [(math.cos if j % 2 else math.sin)(p / 10000 ** ((j - j % 2) / 15)) for j in range(15)]
        for p in range(length)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def randomise(module: nn.Module) -> None:
    """Every parameter random, biases and LayerNorms too, which PyTorch starts at 0 and 1."""
    generator = torch.Generator().manual_seed(7)
    for name, value in module.named_parameters():
        shift = 1.0 if value.ndim == 1 and name.endswith("weight") else 0.0
        with torch.no_grad():
            value.copy_(shift + 0.3 * torch.randn(value.shape, generator=generator))


def without(values: dict, *names: str) -> dict:
    return {name: value for name, value in values.items() if name not in names}


def given(case: Case, **changes):
    """The module of a case and its state as a source; ``changes`` replace fields of the source."""
    module = case.module()
    fields = {"flags": case.flags(), "wrapper": {}} | changes
    return module, source_of(module.state_dict(), **fields)


def assert_imports(module: Wrapper, source) -> TransformerConfig:
    """Both twins compute what the module does, and the way back gives its bytes."""
    config, canonical = import_source(FAMILY, source)
    source_ids, target_ids = batch(config)
    expected = module(torch.from_numpy(source_ids), torch.from_numpy(target_ids)).numpy()
    assert_same_logits(FAMILY, config, canonical, source_ids, target_ids, expected)
    assert_round_trip(FAMILY, source)
    return config


NAMES = {
    "transformer": "net.core",
    "encoder.embedding": "net.words.0",
    "decoder.embedding": "net.words.1",
    "decoder.finalFc": "head",
}


def moved(state: dict) -> dict:
    """A state under the names of ``NAMES``."""
    theirs = {"transformer.": "net.core.", "src_emb.": "net.words.0.", "tgt_emb.": "net.words.1."}
    theirs["generator."] = "head."
    starts = {name: next(old for old in theirs if name.startswith(old)) for name in state}
    return {theirs[old] + name.removeprefix(old): state[name] for name, old in starts.items()}
