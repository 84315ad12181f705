"""Which tensor of a checkpoint is which of a table, and what their shapes say of sizes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from convert.core.operations import RuleError
from convert.core.tensors import Tensors
from convert.naming.layouts import BLOCK, PARTS, word_lengths
from convert.naming.table import HALVES, Entry, NamingTable, Unused, layer_in, numberless
from transformer_spec import Faults

TABLES = {
    "none": (),
    "target_output": ("decoder.embedding.weight", "decoder.finalFc.weight"),
    "source_target": ("encoder.embedding.weight", "decoder.embedding.weight"),
    "all": ("encoder.embedding.weight", "decoder.embedding.weight", "decoder.finalFc.weight"),
}
# What the words of a layout are of a model, by the end of our name.
FIELDS: tuple[tuple[str, dict[str, str]], ...] = (
    (r"encoder\.embedding\.weight", {"rows": "source_vocab_size", "width": "hidden_dim"}),
    (r"decoder\.embedding\.weight", {"rows": "target_vocab_size", "width": "hidden_dim"}),
    (r"\.pos_embedding\.weight", {"rows": "positions", "width": "hidden_dim"}),
    (r"relative_bias\.weight", {"rows": "relative_buckets", "heads": "num_heads"}),
    (r"\.fc[QKV]\.\w+", {"out": "heads_dim", "in": "hidden_dim", "heads": "num_heads"}),
    (r"\.fcOut\.\w+", {"out": "hidden_dim", "in": "heads_dim", "heads": "num_heads"}),
    (r"\.fc[13]\.\w+", {"out": "inner_dim", "in": "hidden_dim"}),
    (r"\.fc2\.\w+", {"out": "hidden_dim", "in": "inner_dim"}),
    (r"\.finalFc\.\w+", {"out": "target_vocab_size", "in": "hidden_dim"}),
    (r"\w", {"width": "hidden_dim"}),
)
MISSING, EXTRA, SHAPES = "are missing", "have no place in the table", "do not fit their layouts"
SHOWN = 2
BUFFER_ROWS = "buffer rows"
NOT_OURS = {"heads_dim": "the width of all heads (queries, keys and values have one)"}


@dataclass(frozen=True)
class Placed:
    """A tensor of theirs, by its name, that is an entry of the table in a layer."""

    theirs: str
    entry: Entry
    layer: int = 0

    @property
    def targets(self) -> tuple[str, ...]:
        return self.entry.targets(self.layer)


@dataclass
class Match:
    """A checkpoint's names laid against a table; ``faults`` are what does not fit."""

    table: NamingTable
    names: Collection[str]
    tied: str = "none"
    placed: dict[str, Placed] = field(default_factory=dict)
    buffers: list[str] = field(default_factory=list)
    unused: dict[str, Unused] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        for name in self.names:
            self._place(name)
        for half in HALVES:
            self._check_layers(half)
        self._check_missing()

    def _place(self, name: str) -> None:
        found = [
            (one, layer)
            for one in self.table.by_numberless.get(numberless(name), ())
            if (layer := layer_in(name, one.theirs)) is not None
        ]
        for one, layer in found:
            if isinstance(one, Unused):
                self.unused[name] = one
            else:
                self.placed[name] = Placed(name, one, layer)
        if len(found) > 1:
            shown = " and ".join(one.theirs for one, _ in found)
            self.faults.add(f"{name} has two places in the table: {shown}")
        if not found and name in self.table.buffers:
            self.buffers.append(name)
        elif not found:
            self.faults.add(f"{name} has no place in the table", EXTRA)

    @cached_property
    def by_ours(self) -> dict[str, list[Placed]]:
        found = dict[str, list[Placed]]()
        for placed in self.placed.values():
            for ours in placed.targets:
                found.setdefault(ours, []).append(placed)
        return found

    def layers(self, half: str) -> int:
        """How many layers a half has."""
        return max(self._numbers[half], default=-1) + 1

    @cached_property
    def _numbers(self) -> dict[str, set[int]]:
        """The numbers of each half's layers that are there."""
        found = {half: set[int]() for half in HALVES}
        for placed in self.placed.values():
            if placed.entry.layered:
                found[placed.entry.ours[0].partition(".")[0]].add(placed.layer)
        return found

    def _check_layers(self, half: str) -> None:
        numbers, count = self._numbers[half], self.layers(half)
        layered = [e for e in self.table.entries if e.ours[0].startswith(f"{half}.") and e.layered]
        if layered and not numbers:
            self.faults.add(f"no layer of the {half} is there ({layered[0].theirs})")
        gone = [n for n in range(count) if n not in numbers]
        listed = ", ".join(map(str, gone))
        self.faults.require(
            not gone, f"the {half}'s layers are {_span(numbers)}: nothing is there of {listed}"
        )

    def _check_missing(self) -> None:
        """Tensors that must be there; one of several tied tables suffices."""
        tied = TABLES[self.tied]
        there = any(name in self.by_ours for name in tied)
        for entry in self.table.entries:
            if entry.optional or (there and all(name in tied for name in entry.ours)):
                continue
            half = entry.ours[0].partition(".")[0]
            for layer in sorted(self._numbers[half]) if entry.layered else (0,):
                name = entry.name(layer)
                if name not in self.placed:
                    self.faults.add(f"{name} is missing ({entry.targets(layer)[0]})", MISSING)

    def has(self, *ends: str) -> bool:
        """Whether any of ours with such an end is given by the table or a tensor."""
        return any(name.endswith(ends) for name in self.by_ours)

    def all_or_none(self, bias: str, *modules: str) -> bool:
        """Whether modules of ours have a bias; some with and some without are a fault."""
        weights = [n for n in self.by_ours if n.endswith(tuple(f".{m}.weight" for m in modules))]
        biases = {name: name.replace(".weight", ".bias") for name in weights}
        with_bias = [n for n, name in biases.items() if name in self.by_ours]
        without = [n for n in weights if n not in with_bias]
        if with_bias and without:
            one, other = self.by_ours[with_bias[0]][0].theirs, self.by_ours[without[0]][0].theirs
            self.faults.add(
                f"{bias}: {len(with_bias)} of {len(weights)} have a bias; {one} has one, {other} "
                "has none"
            )
        return bool(with_bias)


@dataclass
class Sizes:
    """What shapes say: a size, and which tensors say it."""

    found: dict[str, dict[int, list[str]]] = field(default_factory=dict)

    def add(self, size: str, value: int, name: str) -> None:
        self.found.setdefault(size, {}).setdefault(value, []).append(name)

    def one(self, size: str, faults: Faults) -> int | None:
        """The one value of a size; several are a fault."""
        values = self.found.get(size, {})
        if len(values) > 1:
            shown = ", and ".join(f"{value} by {_some(by)}" for value, by in values.items())
            faults.add(f"{NOT_OURS.get(size, size)} is {shown}")
        return next(iter(values), None)


def read_sizes(match: Match, tensors: Tensors, heads: int | None) -> Sizes:
    """The sizes that shapes show; a shape that does not fit its layout is a fault of the match.

    ``heads`` are those that are told; else a shape must have them apart.
    """
    sizes = Sizes()
    apart = [p for p in match.placed.values() if ("heads",) in p.entry.layout.axes]
    known = {"heads": heads} if heads else {}
    for placed in [*apart, *(p for p in match.placed.values() if p not in apart)]:
        if "heads" not in known and apart and placed not in apart:
            known = {"heads": next(iter(sizes.found.get("num_heads", {1: []})))}
        _add_sizes(sizes, match, placed, tensors[placed.theirs].shape, known)
    for name in match.buffers:
        _add_rows(sizes, match, name, tensors[name].shape)
    return sizes


def misfits(match: Match, tensors: Tensors) -> int:
    """How many shapes do not fit a table, or contradict each other; whatever the heads are."""
    before = len(match.faults.messages)
    found = read_sizes(match, tensors, None).found
    several = [size for size, values in found.items() if size != BUFFER_ROWS and len(values) > 1]
    if match.tied in ("all", "source_target"):
        words = [set(found.get(f"{side}_vocab_size", ())) for side in ("source", "target")]
        several += ["vocabularies"] if all(words) and words[0] != words[1] else []
    faults = len(match.faults.messages) - before
    del match.faults.messages[before:], match.faults.kinds[before:]
    return faults + len(several)


def _add_sizes(
    sizes: Sizes, match: Match, placed: Placed, shape: tuple[int, ...], known: Mapping[str, int]
) -> None:
    layout, name = placed.entry.layout, placed.theirs
    if layout.is_one:
        if shape != (1,) * len(layout.axes):
            told = f"shape {list(shape)} is not one number, {layout.text}"
            match.faults.add(f"{name}: {told}", SHAPES)
        return
    if BLOCK in layout.words:
        sizes.add("head_dim", shape[0], name)
        return
    if {"heads", "dim"} <= set(layout.words) and "heads" not in known:
        if ("heads",) not in layout.axes:
            return  # how many heads there are is told to the user once
    else:
        known = {**known} if "heads" in layout.words else {}
    try:
        lengths = word_lengths(layout, shape, {**known, PARTS: len(placed.entry.ours)})
    except RuleError as error:
        match.faults.add(f"{name}: {error}", SHAPES)
        return
    for ours in placed.targets:
        words = next(words for end, words in FIELDS if re.search(end, ours))
        for word, size in {**words, "dim": "head_dim"}.items():
            if word in lengths:
                sizes.add(size, lengths[word], name)


def _add_rows(sizes: Sizes, match: Match, name: str, shape: tuple[int, ...]) -> None:
    try:
        lengths = word_lengths(match.table.buffers[name].layout, shape, {})
    except RuleError as error:
        match.faults.add(f"{name}: {error}", SHAPES)
        return
    sizes.add(BUFFER_ROWS, lengths["rows"], name)
    sizes.add("hidden_dim", lengths["width"], name)


def _span(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {more:,} more" if more > 0 else shown
