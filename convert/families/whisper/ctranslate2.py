"""Whisper as CTranslate2 and faster-whisper have it: model.bin of a ``WhisperSpec``, revision 3.

config.json beside it says no sizes: the vocabulary, widths and positions are those of the arrays,
the heads are a variable, layers are counted. The names are those that our export writes, read the
other way: Q, K and V lie in one matrix, and the part of its bias that is K's is zeros. Import here;
``--to ctranslate2`` writes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from convert.checkpoints.ctranslate2 import ALIASES, REVISION, SCALARS, SPECIFICATION
from convert.core.rules import Rule, reverse
from convert.exports.ctranslate2_rules import HALVES, ctranslate2_rules
from convert.families.base import Family, Reading, Settings, Source
from convert.families.whisper.openai import config_of
from convert.formats.ctranslate2 import SPEECH
from transformer_spec import Faults, TransformerConfig, UserError

OF_SEARCH = ("suppress_ids", "suppress_ids_begin", "lang_ids", "alignment_heads")
TABLE, PROJECTION = "decoder/embeddings/weight", "decoder/projection/weight"
HEADS = tuple(f"{half}/num_heads" for half in HALVES)
# Variables that are one number and that this model has in one value; 3 is the exact GELU.
FIXED = {
    "decoder/pre_norm": 1,
    "decoder/activation": 3,
    "decoder/alibi": 0,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
# Those that say nothing without ALiBi, and of layers whose attention a Translator would return.
SILENT = (
    "decoder/alignment_heads",
    "decoder/alignment_layer",
    "decoder/scale_alibi",
    "decoder/alibi_use_positive_positions",
)
# Our field -> the array whose axis it is: its name, its number of axes, the axis.
SIZES = {
    "target_vocab_size": (TABLE, 2, 0),
    "hidden_dim": (TABLE, 2, 1),
    "feature_dim": ("encoder/conv1/weight", 3, 1),
    "inner_dim": ("encoder/layer_0/ffn/linear_0/weight", 2, 0),
    "max_source_length": ("encoder/position_encodings/encodings", 2, 0),
    "max_length": ("decoder/position_encodings/encodings", 2, 0),
}


class WhisperCTranslate2(Family):
    """``model.bin`` of a speech model of CTranslate2, of any number format."""

    name = "whisper-ctranslate2"

    def recognizes(self, source: Source) -> bool:
        return (source.settings or {}).get(SPECIFICATION) == SPEECH

    def read_config(self, source: Source) -> Reading:
        if source.settings is None or SPECIFICATION not in source.settings:
            raise UserError(f"{source.tensors.label} is no model.bin of CTranslate2")
        settings = Settings(source.settings, source.ignored)
        settings.only(SPECIFICATION, SPEECH)
        settings.only(REVISION, 3)
        settings.ignore(OF_SEARCH)
        values = _sizes(source, settings.faults)
        values["num_heads"] = _heads(settings.get(SCALARS, {}), settings.faults)
        tied = _is_tied(settings.get(ALIASES, {}))
        values["tied_embeddings"] = "target_output" if tied else "none"
        complete = not settings.faults.messages
        config = config_of(values, "vocabulary", source, settings.faults) if complete else None
        settings.finish(f"{source.tensors.label}, a model of CTranslate2,")
        assert config is not None
        return Reading(config, settings.notes)

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        return reverse(ctranslate2_rules(config))


def _sizes(source: Source, faults: Faults) -> dict[str, Any]:
    """Our fields that are lengths of arrays, and the layers, which are counted."""
    found: dict[str, Any] = {}
    for field, (name, rank, axis) in SIZES.items():
        shape = source.tensors[name].shape if name in source.tensors else None
        if shape is None or len(shape) != rank:
            told = "is missing" if shape is None else f"has shape {list(shape)}"
            faults.add(f"{name!r} {told}; an array of {rank} axes says {field}")
            continue
        found[field] = shape[axis]
    for half in HALVES:
        found[f"num_{half}_layers"] = _layers(source.tensors, half)
    return found


def _layers(names: Collection[str], half: str) -> int:
    numbered = re.compile(rf"{half}/layer_(\d+)/").match
    return len({match[1] for match in map(numbered, names) if match})


def _heads(scalars: Mapping[str, Any], faults: Faults) -> Any:
    """The number of heads, the same in both halves; a variable of another value is a fault."""
    first, second = (scalars.get(name) for name in HEADS)
    faults.require(
        first is not None and first == second,
        f"{HEADS[0]} is {first!r} and {HEADS[1]} {second!r}; both halves must have the same",
    )
    for name, value in scalars.items():
        if name in FIXED:
            told = f"{name} is {value!r}; only {FIXED[name]} can be expressed"
            faults.require(value == FIXED[name], told)
        elif name not in (*HEADS, *SILENT):
            faults.add(f"{name} = {value!r} is not known; what it does is not kept")
    return first


def _is_tied(aliases: Mapping[str, str]) -> bool:
    """Whether logits and embeddings have one table: one name stands for the other."""
    return aliases.get(TABLE, TABLE) == aliases.get(PROJECTION, PROJECTION)
