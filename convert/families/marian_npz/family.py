"""Marian's own model files: an .npz of arrays with the options inside, ``special:model.yml``.

Layers count from 1, matrices are (in, out), biases and LayerNorms are rows (1, n). Marian has no
padding token and starts its decoder from a zero embedding: a row of zeros is added to every word
table, and its number is both the padding and the start token, as in the conversion of OPUS-MT
models to Hugging Face. Import only.
"""

from __future__ import annotations

from convert.core.operations import TRANSPOSE, AddAxis, Chain, Duplicate, Operation, ZeroRows
from convert.core.rules import Rule, rename
from convert.families.base import Family, Reading, Source, kept_aside
from convert.families.marian_npz.options import OPTIONS, read_options, reading_of
from transformer_spec import TransformerConfig

ROW = AddAxis(0).reversed  # (1, n) -> (n,)
PADDED = ZeroRows(1)
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


class MarianNpz(Family):
    """``model.npz`` of marian-nmt, type transformer."""

    name = "marian-npz"

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


def _tables(config: TransformerConfig, source: Source) -> list[Rule]:
    """``Wemb`` serves both halves, ``encoder_Wemb`` and ``decoder_Wemb`` one each."""
    tables = {half: f"{half}.embedding.weight" for half in LAYERS}
    if config.tied_embeddings == "all":
        return [rename("Wemb", tables["encoder"], PADDED)]
    if "Wemb" in source.tensors:
        both = Chain(PADDED, Duplicate(2))
        return [Rule(("Wemb",), tuple(tables.values()), both, "one table in both halves")]
    return [rename(f"{half}_Wemb", table, PADDED) for half, table in tables.items()]


def _output(config: TransformerConfig, source: Source) -> list[Rule]:
    """Its matrix is (D, V) as ``W`` in older files and (V, D) as ``Wt`` in newer ones."""
    rules = []
    if config.tied_embeddings == "none":
        newer = f"{OUTPUT}_Wt" in source.tensors
        operation = PADDED if newer else Chain(TRANSPOSE, PADDED)
        name = f"{OUTPUT}_Wt" if newer else f"{OUTPUT}_W"
        rules.append(rename(name, "decoder.finalFc.weight", operation))
    if config.output_bias != "none":
        rules.append(rename(f"{OUTPUT}_b", "decoder.finalFc.bias", Chain(ROW, PADDED)))
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
