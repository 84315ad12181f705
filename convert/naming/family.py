"""A naming family that a table makes: both directions, and the config, from one text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convert.core.operations import Chain, Copy, Duplicate, Operation, WithZeros
from convert.core.rules import Rule
from convert.families.base import Family, Reading, Source, announced, kept_aside
from convert.families.sinusoids import sinusoid_rule, stored_sinusoids
from convert.naming.layouts import operation_of
from convert.naming.matching import BUFFER_ROWS, Match, Placed, misfits, read_sizes
from convert.naming.table import EXPRESSION, HALVES, WIDTHS, NamingTable
from transformer_spec import (
    DROPOUTS,
    STORED,
    Faults,
    TransformerConfig,
    UserError,
    position_rows,
    tied_weights,
    weight_shapes,
)
from transformer_spec.config import DECLARATIONS
from transformer_spec.errors import ConfigError
from transformer_spec.inventory import all_weight_shapes

NAMES, SETTINGS = "naming_table", "fields"  # of a config.json that is written here
SIZES = (
    "source_vocab_size", "target_vocab_size", "hidden_dim", "inner_dim", "num_heads", "head_dim",
    "num_encoder_layers", "num_decoder_layers", "max_length",
)  # fmt: skip
IDS = ("pad_id", "unk_id", "bos_id", "eos_id", "decoder_start_id")
# What a module computes and no name or shape shows: the table or a flag says it.
TOLD = ("norm_position", "activation", "embedding_scale", "norm_epsilon", "pad_id")
SINUSOIDS = ("sinusoid_layout", "sinusoid_frequency")
ROUNDED = (
    "checked against the sinusoids of the config, which take their place; the module computes with "
    "these rounded numbers, which --encoder-positions frozen --decoder-positions frozen keeps"
)


class NamedFamily(Family):
    """The family of a table."""

    settings_file = "config.json"

    def __init__(self, table: NamingTable) -> None:
        self.table = table
        self.name = table.name
        self.containers = table.containers
        self.never_read = frozenset(one.theirs for one in table.unused)

    def recognizes(self, source: Source) -> bool:
        """Whether every name has its place, and none is missing."""
        return any(_covers(form, source) for form in self.table.forms)

    def read_config(self, source: Source) -> Reading:
        """What the table and flags say, and the sizes that shapes show; all faults at once."""
        forms = self.table.forms
        distances = [_distance(form, source) for form in forms]
        form = forms[distances.index(min(distances))]
        alike = [one for one, far in zip(forms, distances, strict=True) if far == min(distances)]
        return _Reader(form, source, alike).reading()

    def rules(self, config: TransformerConfig, source: Source) -> list[Rule]:
        match = Match(self._table_of(config, source), source.tensors, config.tied_embeddings)
        kept, groups = tied_weights(config), dict[tuple[str, ...], list[Placed]]()
        for placed in match.placed.values():
            targets = tuple(dict.fromkeys(kept.get(name, name) for name in placed.targets))
            groups.setdefault(targets, []).append(placed)
        rules = [self._rule(config, targets, placed) for targets, placed in groups.items()]
        if config.norm != "rms":
            rules = _with_zeros(rules, set(match.by_ours))
        for name in match.buffers:
            rules.append(sinusoid_rule(name, config, _frozen(name)))
        return rules + [kept_aside(name, one.reason) for name, one in match.unused.items()]

    def _rule(
        self, config: TransformerConfig, targets: tuple[str, ...], placed: list[Placed]
    ) -> Rule:
        """One tensor, or several that are tied, of theirs; one or several of ours."""
        names = tuple(p.theirs for p in placed)
        operation, *others = (
            operation_of(p.entry.layout, p.targets[0], len(targets), config) for p in placed
        )
        if not others:
            return Rule(names, targets, operation)
        if any(other.label != operation.label for other in others):
            lie = " and ".join(f"{p.theirs} as {p.entry.layout.text}" for p in placed)
            raise UserError(
                f"{lie}: they are one table by tied_embeddings {config.tied_embeddings!r} and lie "
                "differently; --drop one of them, or give --tied-embeddings none"
            )
        tied: Operation = Duplicate(len(placed)).reversed
        operation = tied if isinstance(operation, Copy) else Chain(tied, operation)
        return Rule(names, targets, operation, "tied")

    def _table_of(self, config: TransformerConfig, source: Source | None = None) -> NamingTable:
        """The form that a config, and tensors, are of, with positions that are weights in it."""
        forms = [form.storing_positions(kinds_of(config)) for form in self.table.forms]
        if len(forms) == 1:
            return forms[0]

        def distance(form: NamingTable) -> tuple[int, int, int]:
            faults, shapes = Faults(), 0
            if source:
                match = Match(form, source.tensors, config.tied_embeddings)
                faults, shapes = match.faults, misfits(match, source.tensors)
            else:
                _check_named(form, config, faults)
            return len(faults.messages), shapes, len(_contradicted(form, config))

        return min(forms, key=distance)

    def written(
        self, config: TransformerConfig, wrapper: Mapping[str, str] | None = None
    ) -> Source:
        """The names and shapes that the module has for a config."""
        shapes, there = dict[str, tuple[int, ...]](), all_weight_shapes(config)
        table = self._table_of(config)
        for entry in table.entries:
            half = entry.ours[0].partition(".")[0]
            count = getattr(config, f"num_{half}_layers") if "{i}" in entry.ours[0] else 1
            for layer in range(count):
                targets = entry.targets(layer)
                if all(name in there for name in targets):
                    operation = operation_of(entry.layout, targets[0], len(targets), config)
                    mine = (there[name] for name in targets)
                    (shapes[entry.name(layer)],) = operation.inverse_shapes(*mine)
        shapes |= {name: self._buffer_shape(name, config) for name in table.buffers}
        for one in table.unused:
            if one.shape is not None:
                shapes[one.theirs] = tuple(_size(size, config) for size in one.shape)
        return announced(shapes)

    def _buffer_shape(self, name: str, config: TransformerConfig) -> tuple[int, ...]:
        words = {"rows": position_rows(config), "width": config.hidden_dim, "1": 1}
        axes = self.table.buffers[name].layout.axes
        return tuple(int(np.prod([words[word] for word in axis])) for axis in axes)

    def derived(self, name: str, config: TransformerConfig) -> np.ndarray | None:
        """A table of sinusoids that the module keeps in its files."""
        if name not in self.table.buffers:
            return None
        table = stored_sinusoids(config, position_rows(config))
        return table.reshape(self._buffer_shape(name, config))

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """What the model is, for the way back: the module itself has no file of settings.

        A setting that the user gave otherwise than the table has it, when the model came in, may go
        out again.
        """
        faults, form, before = Faults(), self._table_of(config), _written_fields(original)
        for name, value in _contradicted(form, config).items():
            given = getattr(config, name)
            told = f"{name} is {given!r}; {self.name} has {value!r} only"
            faults.require(given == before.get(name), told)
        _check_named(form, config, faults)
        faults.raise_if_any(f"{self.name} cannot hold this model")
        return settings_of(self.table, config)


def _given(form: NamingTable, source: Source) -> dict[str, Any]:
    """What a table, a config.json that was written here, and flags say; the last word counts."""
    return {**form.config, **_written_fields(source.settings), **source.flags}


def _match(form: NamingTable, source: Source) -> Match:
    """A source's names laid against a table, positions that are weights among them."""
    given = _given(form, source)
    kinds = {half: given.get(f"{half}_positions") for half in HALVES}
    tied = str(given.get("tied_embeddings", "none"))
    return Match(form.storing_positions(kinds), source.tensors, tied)


def _covers(form: NamingTable, source: Source) -> bool:
    """Whether every name has its place in a table, and none is missing."""
    return form.places_all(source.tensors) and not _match(form, source).faults.messages


def _distance(form: NamingTable, source: Source) -> tuple[int, int, int]:
    """How many names, shapes and settings of a source are not those of a table."""
    match, given = _match(form, source), _given(form, source)
    names = len(match.faults.messages)
    other = [name for name, value in form.config.items() if _differ(name, given[name], value)]
    return names, misfits(match, source.tensors), len(other)


def _differ(name: str, given: Any, value: Any) -> bool:
    """Whether two values are known to be others: a number and an expression are not."""
    return given != value and is_expression(name, given) == is_expression(name, value)


class _Reader:
    """Reads a source by a table, and collects every fault of it.

    ``alike`` are the forms of the table that names, shapes and flags do not tell apart.
    """

    def __init__(self, table: NamingTable, source: Source, alike: Sequence[NamingTable]) -> None:
        self.source, self.alike = source, alike
        self.given = _given(table, source)
        self.match = _match(table, source)
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
        notes += self._taken()
        if self.match.buffers:
            notes.append(f"{', '.join(self.match.buffers)}: {ROUNDED}")
        config = self._config({**self.given, **fields})
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
        names -= {*self.source.flags, *_written_fields(self.source.settings)}
        if not names:
            return []
        taken = ", ".join(f"{name} {self.given[name]!r}" for name in sorted(names))
        return [
            f"{self.table.name}: taken with {taken}, as the module has it unless it is told "
            "otherwise, which no weight shows; flags say otherwise"
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
        found: dict[str, Any] = {
            "attention_bias": match.all_or_none("attention_bias", "fcQ", "fcK", "fcV"),
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
            return dataclasses.replace(config, **_evaluated(fields, config))
        except ConfigError as error:
            raise UserError(f"{self.source.tensors.label}: {error}", error.faults) from None


def _check_named(form: NamingTable, config: TransformerConfig, faults: Faults) -> None:
    """Every weight has a name of theirs, and every name of theirs a weight."""
    by_pattern = {name: entry for entry in form.entries for name in entry.ours}
    wanted = {_pattern_of(name) for name in weight_shapes(config)}
    zeros = {name for name in wanted if _is_norm(name) and name.endswith(".bias")}
    for name in sorted(wanted - by_pattern.keys() - zeros):
        faults.add(f"{name} has no name there", "have no name there")
    needed = {name for name, entry in by_pattern.items() if not entry.optional}
    for name in sorted(needed - {_pattern_of(n) for n in all_weight_shapes(config)}):
        faults.add(f"the module has {name}, which this model has not", "are not in this model")


def settings_of(table: NamingTable, config: TransformerConfig) -> dict[str, Any]:
    """What stands in config.json beside weights with a table's names."""
    return {NAMES: table.name, SETTINGS: config.to_dict()}


def kinds_of(config: TransformerConfig) -> dict[str, str]:
    """The kind of positions of each half."""
    return {half: getattr(config, f"{half}_positions") for half in HALVES}


def _written_fields(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of a config.json that was written here."""
    fields = (settings or {}).get(SETTINGS) if NAMES in (settings or {}) else None
    return dict(fields) if isinstance(fields, Mapping) else {}


def is_expression(name: str, value: Any) -> bool:
    return isinstance(value, str) and DECLARATIONS[name].type is float


def _evaluated(fields: Mapping[str, Any], config: TransformerConfig) -> dict[str, float]:
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


def _contradicted(form: NamingTable, config: TransformerConfig) -> dict[str, Any]:
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
    free = {*SIZES, *IDS, "tied_embeddings"} - {*table.config} | training
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
    fields = usual | {k: v for k, v in table.config.items() if k not in training}
    held, kinds = _held(table), kinds_of(config)
    for half in held:  # what lies in a buffer may be any table
        if kinds[half] in ("frozen", "sinusoidal"):
            fields.pop(f"{half}_positions", None)
    if "sinusoidal" not in {kind for half, kind in kinds.items() if half not in held}:
        fields = {name: value for name, value in fields.items() if name not in SINUSOIDS}
    relative = ("relative_buckets", "relative_max_distance", "relative_per_layer")
    if "relative" not in (config.encoder_positions, config.decoder_positions):
        fields = {name: value for name, value in fields.items() if name not in relative}
    return fields | _evaluated(fields, config)


def _held(table: NamingTable) -> set[str]:
    """The halves whose table of positions lies in files."""
    stored = {name for entry in table.entries if not entry.optional for name in entry.ours}
    held = {half for half in HALVES if f"{half}.pos_embedding.weight" in stored}
    return held | {half for buffer in table.buffers.values() for half in buffer.halves}


def _size(text: str, config: TransformerConfig) -> int:
    return int(text) if text.isdecimal() else int(getattr(config, text))


def _pattern_of(name: str) -> str:
    """A canonical name with {i} for its layer."""
    parts = name.split(".")
    return ".".join("{i}" if part.isdecimal() else part for part in parts)


def _is_norm(name: str) -> bool:
    return "orm" in name.split(".")[-2]


def _with_zeros(rules: list[Rule], there: set[str]) -> list[Rule]:
    """Norms whose module has no bias: zeros on the way in, refused otherwise on the way out."""
    result = list[Rule]()
    for rule in rules:
        weight = rule.targets[0]
        bias = weight.removesuffix(".weight") + ".bias"
        if not (_is_norm(weight) and weight.endswith(".weight")) or bias in there:
            result.append(rule)
            continue
        operation = WithZeros()
        if not isinstance(rule.operation, Copy):
            operation = Chain(rule.operation, operation)
        result.append(Rule(rule.sources, (weight, bias), operation))
    return result


def _frozen(name: str) -> str:
    """What to do where a stored table is not the declared sinusoids."""
    return (
        f"--encoder-positions frozen --decoder-positions frozen take {name} as it is, a table that "
        "is never trained"
    )
