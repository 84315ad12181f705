"""A naming family that a table makes: both directions from one text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.core.operations import Chain, Copy, Duplicate, Operation, WithZeros
from convert.core.rules import Rule
from convert.families.base import Family, Reading, Source, announced, kept_aside
from convert.families.sinusoids import sinusoid_rule, stored_sinusoids
from convert.naming.layouts import operation_of
from convert.naming.matching import Match, Placed, misfits
from convert.naming.reading import ConfigReader, covers, distance
from convert.naming.settings import (
    contradicted,
    kinds_of,
    settings_of,
    written_fields,
)
from convert.naming.table import NamingTable
from transformer_spec import (
    Faults,
    TransformerConfig,
    UserError,
    position_rows,
    tied_weights,
    weight_shapes,
)
from transformer_spec.inventory import all_weight_shapes


class NamedFamily(Family):
    """The family of a table."""

    settings_file = "config.json"
    passes_over = False

    def __init__(self, table: NamingTable) -> None:
        self.table = table
        self.name = table.name
        self.containers = table.containers
        self.never_read = frozenset(one.theirs for one in table.unused)

    def recognizes(self, source: Source) -> bool:
        """Whether every name has its place, and none is missing."""
        return any(covers(form, source) for form in self.table.forms)

    def read_config(self, source: Source) -> Reading:
        """What the table and flags say, and the sizes that shapes show; all faults at once."""
        forms = self.table.forms
        distances = [distance(form, source) for form in forms]
        form = forms[distances.index(min(distances))]
        alike = [one for one, far in zip(forms, distances, strict=True) if far == min(distances)]
        return ConfigReader(form, source, alike).reading()

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
            return len(faults.messages), shapes, len(contradicted(form, config))

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
        words = {"rows": _rows(config), "width": config.hidden_dim, "1": 1}
        axes = self.table.buffers[name].layout.axes
        return tuple(int(np.prod([words[word] for word in axis])) for axis in axes)

    def derived(self, name: str, config: TransformerConfig) -> np.ndarray | None:
        """A table of sinusoids that the module keeps in its files."""
        if name not in self.table.buffers:
            return None
        table = stored_sinusoids(config, _rows(config))
        return table.reshape(self._buffer_shape(name, config))

    def write_settings(
        self, config: TransformerConfig, original: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """What the model is, for the way back: the module itself has no file of settings.

        A setting that the user gave otherwise than the table has it, when the model came in, may go
        out again.
        """
        faults, form, before = Faults(), self._table_of(config), written_fields(original)
        for name, value in contradicted(form, config).items():
            given = getattr(config, name)
            told = f"{name} is {given!r}; {self.name} has {value!r} only"
            faults.require(given == before.get(name), told)
        _check_named(form, config, faults)
        faults.raise_if_any(f"{self.name} cannot hold this model")
        return settings_of(self.table, config)


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


def _rows(config: TransformerConfig) -> int:
    """Rows of a table of sinusoids that serves both halves."""
    return max(position_rows(config, half) for half in ("encoder", "decoder"))
