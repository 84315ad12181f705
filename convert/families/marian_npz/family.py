"""Marian's own model files: an .npz of arrays with the options inside, ``special:model.yml``.

Layers count from 1, matrices are (in, out), biases and LayerNorms are rows (1, n). Marian has no
padding token and starts its decoder from a zero embedding: a row of zeros is added to every word
table, and its number is both the padding and the start token, as in the conversion of OPUS-MT
models to Hugging Face. Of two vocabularies the shorter one is filled up with words that are never
used, so that the token has one number in both. Import only.
"""

from __future__ import annotations

import numpy as np

from convert.core.operations import (
    TRANSPOSE,
    AddAxis,
    Arrays,
    Chain,
    Duplicate,
    Given,
    Operation,
    RuleError,
    Shape,
    Shapes,
    ZeroRows,
)
from convert.core.rules import Rule, rename
from convert.families.base import Family, Reading, Source, kept_aside
from convert.families.marian_npz.options import OPTIONS, read_options, reading_of
from transformer_spec import TransformerConfig

ROW = AddAxis(0).reversed  # (1, n) -> (n,)
# The bias of words that are no words of the vocabulary: exp of it is 0, and float16 holds it.
NEVER = -30000.0
ATTENTIONS = {
    "encoder": {"self": ("multiheadattention", "layerNorm1")},
    "decoder": {
        "self": ("multiheadattention1", "layerNorm1"),
        "context": ("multiheadattention2", "layerNorm2"),
    },
}
LAYERS = {"encoder": "encoder.enc_layers", "decoder": "decoder.dec_layers"}
LAST_NORM = {"encoder": "layerNorm2", "decoder": "layerNorm3"}
LETTERS = {"q": "fcQ", "k": "fcK", "v": "fcV", "o": "fcOut"}
OUTPUT = "decoder_ff_logit_out"


class Biases(Operation):
    """Biases of words, then of ``unused`` ones and of the padding token; the reverse cuts them."""

    label = "biases added"
    reversed_label = "biases cut"

    def __init__(self, unused: int) -> None:
        self.unused = unused

    def forward(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        return (np.concatenate([array, self._added(array.dtype)]),)

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        ((words,),) = self.inverse_shapes(array.shape)
        if not np.array_equal(array[words:], self._added(array.dtype)):
            raise RuleError(f"the last {self.unused + 1} of {len(array)} biases were changed")
        return (array[:words],)

    def _added(self, dtype: np.dtype) -> np.ndarray:
        return np.array([NEVER] * self.unused + [0.0], dtype)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        ((words,),) = shapes
        return ((words + self.unused + 1,),)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        ((words,),) = shapes
        return ((words - self.unused - 1,),)


class NoBiases(Given):
    """Biases of a model without any but for unused words; the reverse accepts nothing else."""

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        if not np.array_equal(arrays[0], self.array):
            raise RuleError("biases of a model that has none were changed")
        return ()

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        return ()


class MarianNpz(Family):
    """``model.npz`` of marian-nmt, type transformer."""

    name = "marian-npz"
    padding_gradient = False  # its decoder starts from zeros that are no parameter

    def recognizes(self, source: Source) -> bool:
        return OPTIONS in source.tensors

    def read_config(self, source: Source) -> Reading:
        """The options inside the file; the tensors are asked for their names alone."""
        return reading_of(read_options(source), source)

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        rules = _tables(config, source) + _output(config, source)
        for half, layers in LAYERS.items():
            for i in range(getattr(config, f"num_{half}_layers")):
                rules += _layer(config, half, f"{half}_l{i + 1}", f"{layers}.{i}")
            if config.embedding_norm:
                rules += _norm(f"{half}_emb", f"{half}.embedding_norm", "_pre")
            if config.final_norm:
                rules += _norm(f"{half}_top", f"{half}.final_norm", "")
        if OPTIONS in source.tensors:
            rules.append(kept_aside(OPTIONS, "Marian's options, as text"))
        return rules


def _added(config: TransformerConfig, source: Source, table: str) -> int:
    """Rows that a table lacks; the padding token's alone, unless the other vocabulary is longer."""
    there = table in source.tensors
    return config.pad_id + 1 - source.tensors[table].shape[0] if there else 1


def _tables(config: TransformerConfig, source: Source) -> list[Rule]:
    """``Wemb`` serves both halves, ``encoder_Wemb`` and ``decoder_Wemb`` one each."""
    tables = {half: f"{half}.embedding.weight" for half in LAYERS}
    if config.tied_embeddings == "all":
        return [rename("Wemb", tables["encoder"], ZeroRows(1))]
    if "Wemb" in source.tensors:
        both = Chain(ZeroRows(1), Duplicate(2))
        return [Rule(("Wemb",), tuple(tables.values()), both, "one table in both halves")]
    names = {f"{half}_Wemb": table for half, table in tables.items()}
    return [
        rename(name, table, ZeroRows(_added(config, source, name))) for name, table in names.items()
    ]


def _output(config: TransformerConfig, source: Source) -> list[Rule]:
    """Its matrix is (D, V) as ``W`` in older files and (V, D) as ``Wt`` in newer ones."""
    rules, added = list[Rule](), _added(config, source, "decoder_Wemb")
    padded = ZeroRows(added)
    if config.tied_embeddings == "none":
        newer = f"{OUTPUT}_Wt" in source.tensors
        operation = padded if newer else Chain(TRANSPOSE, padded)
        name = f"{OUTPUT}_Wt" if newer else f"{OUTPUT}_W"
        rules.append(rename(name, "decoder.finalFc.weight", operation))
    bias = Chain(ROW, Biases(added - 1))
    if config.output_bias == "trained":
        rules.append(rename(f"{OUTPUT}_b", "decoder.finalFc.bias", bias))
    elif config.output_bias == "frozen":
        words = np.zeros(config.target_vocab_size - added, np.float32)
        given = NoBiases(*Biases(added - 1).forward(words))
        rules.append(Rule((), ("decoder.finalFc.bias",), given, "none but of words that are none"))
    return rules


def _layer(config: TransformerConfig, half: str, theirs: str, ours: str) -> list[Rule]:
    suffix = "_pre" if config.norm_position == "pre" else ""
    rules = []
    for name, (attention, norm) in ATTENTIONS[half].items():
        for letter, part in LETTERS.items():
            rules += _linear(f"{theirs}_{name}", letter, f"{ours}.{attention}.{part}")
        rules += _norm(f"{theirs}_{name}_Wo", f"{ours}.{norm}", suffix)
    for number in "12":
        rules += _linear(f"{theirs}_ffn", number, f"{ours}.ffn.fc{number}")
    return rules + _norm(f"{theirs}_ffn_ffn", f"{ours}.{LAST_NORM[half]}", suffix)


def _linear(theirs: str, which: str, ours: str) -> list[Rule]:
    pairs: list[tuple[str, str, Operation]] = [("W", "weight", TRANSPOSE), ("b", "bias", ROW)]
    return [rename(f"{theirs}_{x}{which}", f"{ours}.{leaf}", by) for x, leaf, by in pairs]


def _norm(theirs: str, ours: str, suffix: str) -> list[Rule]:
    pairs = {"scale": "weight", "bias": "bias"}
    return [rename(f"{theirs}_ln_{x}{suffix}", f"{ours}.{leaf}", ROW) for x, leaf in pairs.items()]
