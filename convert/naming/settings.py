"""What a module computes, in the words of a table: numbers may be expressions of widths."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.naming.table import HALVES, NamingTable
from transformer_spec import (
    DROPOUTS,
    TransformerConfig,
)
from transformer_spec.config import DECLARATIONS

NAMES, SETTINGS = "naming_table", "fields"  # of a config.json that is written here
SIZES = (
    "source_vocab_size", "target_vocab_size", "hidden_dim", "inner_dim", "num_heads", "head_dim",
    "num_encoder_layers", "num_decoder_layers", "max_length",
)  # fmt: skip
BESIDE = ("unk_id", "bos_id", "eos_id")  # ids that are no part of what a module computes
IDS = ("pad_id", *BESIDE, "decoder_start_id")
SINUSOIDS = ("sinusoid_layout", "sinusoid_frequency")
# Numbers that a table may write as what they are of the model's widths.
EXPRESSION = re.compile(r"(1/)?(float32\()?(sqrt\()?([DAFH])(?(3)\))(?(2)\))")
WIDTHS = {"D": "hidden_dim", "A": "head_dim", "F": "inner_dim", "H": "num_heads"}


def settings_of(table: NamingTable, config: TransformerConfig) -> dict[str, Any]:
    """What stands in config.json beside weights with a table's names."""
    return {NAMES: table.name, SETTINGS: config.to_dict()}


def written_fields(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a config.json that was written here."""
    fields = (settings or {}).get(SETTINGS) if NAMES in (settings or {}) else None
    return dict(fields) if isinstance(fields, Mapping) else {}


def usual_ids(given: Mapping[str, Any]) -> dict[str, int]:
    """Ids that are not given: the usual ones, or the first free one where another has it."""
    found = dict[str, int]()
    for name in BESIDE:
        if name not in given:
            taken = {given.get(other) for other in ("pad_id", *BESIDE)} | {*found.values()}
            numbers = (DECLARATIONS[name].default, *range(len(taken) + 1))
            found[name] = next(number for number in numbers if number not in taken)
    return found


def kinds_of(config: TransformerConfig) -> dict[str, str]:
    """The kind of positions of each half."""
    return {half: getattr(config, f"{half}_positions") for half in HALVES}


def is_expression(name: str, value: Any) -> bool:
    return isinstance(value, str) and DECLARATIONS[name].type is float


def evaluated(fields: Mapping[str, Any], config: TransformerConfig) -> dict[str, float]:
    """What expressions are of a config's widths."""
    return {
        name: value_of(value, config)
        for name, value in fields.items()
        if is_expression(name, value)
    }


def value_of(text: str, config: TransformerConfig) -> float:
    found = EXPRESSION.fullmatch(text.replace(" ", ""))
    assert found is not None
    inverse, rounded, root, letter = found.groups()
    value = float(getattr(config, WIDTHS[letter]))
    value = value**0.5 if root else value
    value = float(np.float32(value)) if rounded else value
    return 1 / value if inverse else value


def contradicted(form: NamingTable, config: TransformerConfig) -> dict[str, Any]:
    """What a form has otherwise than a config."""
    expected = _expected(form, config)
    return {n: value for n, value in expected.items() if not _same(getattr(config, n), value)}


def _same(given: Any, value: Any) -> bool:
    """Equal; numbers as modules hold them, which is float32."""
    both = isinstance(given, float) and isinstance(value, int | float)
    return np.float32(given) == np.float32(value) if both else given == value


def _expected(table: NamingTable, config: TransformerConfig) -> dict[str, Any]:
    """The fields whose values the module has, whatever its sizes: the table's, and the defaults."""
    training = {*DROPOUTS, "dropout_after_norm"}
    free = {*SIZES, *IDS, "tied_embeddings"} - {*table.config} | training | {*BESIDE}
    shown = {
        "attention_bias", "attention_output_bias", "ffn_bias", "final_norm", "embedding_norm",
        "gated_ffn", "output_bias", *(f"{half}_positions" for half in HALVES),
    }  # fmt: skip
    usual = {
        name: getattr(config, name) if declared.default is None else declared.default
        for name, declared in DECLARATIONS.items()
        if name not in free | shown and declared.default is not dataclasses.MISSING
    }
    usual["attention_scale"] = config.head_dim**-0.5
    usual["max_source_length"] = config.max_length
    usual["key_bias"] = _has_key_bias(table, config)
    fields = usual | {k: v for k, v in table.config.items() if k not in training | {*BESIDE}}
    held, kinds = _held(table), kinds_of(config)
    for half in held:  # what lies in a buffer may be any table
        if kinds[half] in ("frozen", "sinusoidal"):
            fields.pop(f"{half}_positions", None)
    if "sinusoidal" not in {kind for half, kind in kinds.items() if half not in held}:
        fields = {name: value for name, value in fields.items() if name not in SINUSOIDS}
    relative = ("relative_buckets", "relative_max_distance", "relative_per_layer")
    if "relative" not in (config.encoder_positions, config.decoder_positions):
        fields = {name: value for name, value in fields.items() if name not in relative}
    return fields | evaluated(fields, config)


def _has_key_bias(table: NamingTable, config: TransformerConfig) -> bool:
    """Whether fcK has a bias where the others of an attention have one."""
    there = {name.rpartition(".fc")[2] for entry in table.entries for name in entry.ours}
    return config.attention_bias and ("K.bias" in there or "Q.bias" not in there)


def _held(table: NamingTable) -> set[str]:
    """The halves whose table of positions lies in files."""
    stored = {name for entry in table.entries if not entry.optional for name in entry.ours}
    held = {half for half in HALVES if f"{half}.pos_embedding.weight" in stored}
    return held | {half for buffer in table.buffers.values() for half in buffer.halves}
