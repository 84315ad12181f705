"""The config of a checkpoint by a table: what the table and flags say, and sizes from shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from convert.families.base import Reading, Source
from convert.naming.matching import BUFFER_ROWS, Match, misfits, read_sizes
from convert.naming.settings import (
    SINUSOIDS,
    SIZES,
    evaluated,
    is_expression,
    settings_of,
    usual_ids,
    written_fields,
)
from convert.naming.table import HALVES, NamingTable
from transformer_spec import (
    STORED,
    Faults,
    TransformerConfig,
    UserError,
)
from transformer_spec.config import DECLARATIONS
from transformer_spec.errors import ConfigError
from transformer_spec.inventory import all_weight_shapes

# What a module computes and no name or shape shows: the table or a flag says it.
TOLD = ("norm_position", "activation", "embedding_scale", "norm_epsilon", "pad_id")
ROUNDED = (
    "checked against the sinusoids of the config, which take their place; the module computes with "
    "these rounded numbers, which --encoder-positions frozen --decoder-positions frozen keeps"
)


def given_by(form: NamingTable, source: Source) -> dict[str, Any]:
    """What a table, a config.json that was written here, and flags say; the last word counts."""
    return {**form.config, **written_fields(source.settings), **source.flags}


def match_of(form: NamingTable, source: Source) -> Match:
    """A source's names laid against a table, positions that are weights among them."""
    given = given_by(form, source)
    kinds = {half: given.get(f"{half}_positions") for half in HALVES}
    tied = str(given.get("tied_embeddings", "none"))
    return Match(form.storing_positions(kinds), source.tensors, tied)


def covers(form: NamingTable, source: Source) -> bool:
    """Whether every name has its place in a table, and none is missing."""
    return form.places_all(source.tensors) and not match_of(form, source).faults.messages


def distance(form: NamingTable, source: Source) -> tuple[int, int, int]:
    """How many names, shapes and settings of a source are not those of a table."""
    match, given = match_of(form, source), given_by(form, source)
    names = len(match.faults.messages)
    other = [name for name, value in form.config.items() if _differ(name, given[name], value)]
    return names, misfits(match, source.tensors), len(other)


def _differ(name: str, given: Any, value: Any) -> bool:
    """Whether two values are known to be others: a number and an expression are not."""
    return given != value and is_expression(name, given) == is_expression(name, value)


class ConfigReader:
    """Reads a source by a table, and collects every fault of it.

    ``alike`` are the forms of the table that names, shapes and flags do not tell apart.
    """

    def __init__(self, table: NamingTable, source: Source, alike: Sequence[NamingTable]) -> None:
        self.source, self.alike = source, alike
        self.given = given_by(table, source)
        self.match = match_of(table, source)
        self.table = self.match.table
        self.faults = self.match.faults

    def reading(self) -> Reading:
        fields = self._sizes() | self._structure()
        self._check_given(fields)
        self._check_told(fields)
        told = ", ".join(f"{n} {self.given[n]!r}" for n in self.source.flags if n in TOLD)
        what = f"{self.source.tensors.label} is not as the table {self.table.name} says"
        self.faults.raise_if_any(what, advice=self._advice())
        notes = [f"{self.table.name}: {told}, as given"] if told else []
        notes += [f"{self.table.name}: {self.table.note}"] if self.table.note else []
        notes += self._taken() + self._taken_ids()
        if self.match.buffers:
            notes.append(f"{', '.join(self.match.buffers)}: {ROUNDED}")
        config = self._config({**usual_ids(self.given), **self.given, **fields})
        self._check_places(config)
        return Reading(config, notes, settings_of(self.table, config))

    def _check_places(self, config: TransformerConfig) -> None:
        """Tensors that are none of the config's weights would be left out."""
        weights, faults = all_weight_shapes(config), Faults()
        for placed in self.match.placed.values():
            for ours in placed.targets:
                told = f"{placed.theirs} is {ours}, which a model of this config has not"
                if ours not in weights:
                    faults.add(told, "are no weights of this config")
        label = self.source.tensors.label
        faults.raise_if_any(f"{label} has more than its config says", advice=self._advice())

    def _taken(self) -> list[str]:
        """What is taken of the forms that nothing tells apart: that of the first."""
        first, *others = (form.config for form in self.alike)
        names = {n for other in others for n, value in other.items() if value != first.get(n)}
        names -= {*self.source.flags, *written_fields(self.source.settings)}
        if not names:
            return []
        taken = ", ".join(f"{name} {self.given[name]!r}" for name in sorted(names))
        return [
            f"{self.table.name}: taken with {taken}, as the module has it unless it is told "
            "otherwise, which no weight shows; flags say otherwise"
        ]

    def _taken_ids(self) -> list[str]:
        """Ids that no weight shows and nobody gave: what decodes and exports goes by them."""
        taken = usual_ids(self.given)
        if not taken:
            return []
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in taken)
        if "bos_id" in taken and "decoder_start_id" not in self.given:
            taken["decoder_start_id"] = taken["bos_id"]
        told = ", ".join(f"{name} {number}" for name, number in taken.items())
        return [
            f"{self.table.name}: not given, and no weight shows them: {told} are taken; decoding "
            f"and exports go by them, so give {flags} where yours are others"
        ]

    def _advice(self) -> str:
        return (
            "what a module computes is in no weight: say it in [config] of the table or by flags "
            "(--num-heads, --pad-id, ...)"
        )

    def _sizes(self) -> dict[str, Any]:
        told = self.given.get("num_heads")
        sizes = read_sizes(self.match, self.source.tensors, told)
        found = {name: sizes.one(name, self.faults) for name in SIZES if name in sizes.found}
        found |= {f"num_{half}_layers": self.match.layers(half) for half in HALVES}
        heads, whole = found.get("num_heads", told), sizes.one("heads_dim", self.faults)
        if heads and whole:
            fits = whole % heads == 0
            self.faults.require(fits, f"num_heads {heads} does not divide {whole}, their width")
            found.setdefault("head_dim", whole // heads)
        elif whole and (width := found.get("head_dim")):  # one block for all heads
            found["num_heads"] = whole // width
        elif heads is None:
            self.faults.add("num_heads is not told; no shape shows it")
        elif not heads:
            self.faults.add(f"num_heads is {heads}; give a number from 1 on")
        found |= self._length(sizes)
        tied = self.match.tied
        if tied in ("all", "source_target") and "target_vocab_size" in found:
            found.setdefault("source_vocab_size", found["target_vocab_size"])
        if tied != "none" and "source_vocab_size" in found:
            found.setdefault("target_vocab_size", found["source_vocab_size"])
        return {name: value for name, value in found.items() if value is not None}

    def _length(self, sizes: Any) -> dict[str, int]:
        """max_length, from the rows of positions: those of a buffer are the most there can be."""
        offset = self.given.get("position_offset", 0)
        rows = sizes.one("positions", self.faults)
        if rows is None and "max_length" not in self.given:
            rows = min(sizes.found.get(BUFFER_ROWS, {}), default=None)
        return {} if rows is None else {"max_length": rows - offset}

    def _structure(self) -> dict[str, Any]:
        """What the presence of tensors shows."""
        match = self.match
        keys = ("fcK",) if match.has(".fcK.bias") else ()
        attention_bias = match.all_or_none("attention_bias", "fcQ", *keys, "fcV")
        found: dict[str, Any] = {
            "attention_bias": attention_bias,
            "key_bias": attention_bias and bool(keys),
            "attention_output_bias": match.all_or_none("attention_output_bias", "fcOut"),
            "ffn_bias": match.all_or_none("ffn_bias", "fc1", "fc2", "fc3"),
            "final_norm": match.has(".final_norm.weight"),
            "embedding_norm": match.has(".embedding_norm.weight"),
            "gated_ffn": match.has(".ffn.fc3.weight"),
        }
        output = match.has("decoder.finalFc.bias")
        if not output or self.given.get("output_bias") == "none":
            found["output_bias"] = "trained" if output else "none"
        for half in HALVES:
            if match.has(f"{half}.pos_embedding.weight") and self._kind(half) not in STORED:
                found[f"{half}_positions"] = "learned"
        return found

    def _kind(self, half: str) -> Any:
        return self.given.get(f"{half}_positions")

    def _check_given(self, fields: Mapping[str, Any]) -> None:
        """What the table or a flag says and tensors show otherwise is a fault."""
        for name, shown in fields.items():
            said = self.given.get(name, shown)
            if said != shown and not isinstance(said, float):
                self.faults.add(f"{name} is given as {said!r}; the tensors show {shown!r}")

    def _check_told(self, fields: Mapping[str, Any]) -> None:
        """What nothing shows has to be told."""
        kinds = {fields.get(f"{h}_positions", self._kind(h)) for h in HALVES}
        needed = [*TOLD, *(SINUSOIDS if "sinusoidal" in kinds else ())]
        for half in HALVES:
            needed += [f"{half}_positions"] if f"{half}_positions" not in fields else []
        for name in (*needed, *SIZES):
            derived = name in ("head_dim", "num_heads")
            if name not in self.given and name not in fields and not derived:
                self.faults.add(f"{name} is not told ({DECLARATIONS[name].help})", "are not told")

    def _config(self, fields: Mapping[str, Any]) -> TransformerConfig:
        plain = {k: v for k, v in fields.items() if not is_expression(k, v)}
        try:
            config = TransformerConfig.from_dict(plain)
            return dataclasses.replace(config, **evaluated(fields, config))
        except ConfigError as error:
            raise UserError(f"{self.source.tensors.label}: {error}", error.faults) from None
