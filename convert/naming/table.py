"""A table of names: theirs = ours, what the module computes, and how its tensors are laid out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from convert.naming.layouts import Layout
from transformer_spec import STORED

HALVES = ("encoder", "decoder")
LAYER = re.compile(r"\{i(?:\+(\d+))?\}")


@dataclass(frozen=True)
class Leaf:
    """What modules of a kind call their weight and bias, and how the weight is laid out."""

    weight: str = "weight"
    bias: str = "bias"
    layout: Layout | None = None


@dataclass(frozen=True)
class Entry:
    """One tensor of theirs, in layer {i}, and the tensors of ours that it is.

    ``optional`` tensors may be missing: biases, which say by being there that the module has them.
    """

    theirs: str
    ours: tuple[str, ...]
    layout: Layout
    optional: bool = False

    @property
    def layered(self) -> bool:
        """Whether there is one in every layer."""
        return "{i}" in self.ours[0]

    def name(self, layer: int) -> str:
        """Their name in a layer."""
        return in_layer(self.theirs, layer)

    def targets(self, layer: int) -> tuple[str, ...]:
        return tuple(name.replace("{i}", str(layer)) for name in self.ours)


@dataclass(frozen=True)
class Unused:
    """A tensor that lies in their files and changes nothing; ``shape`` in widths of the model."""

    theirs: str
    reason: str
    shape: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Buffer:
    """A table of positions that their files hold, of one half or both."""

    layout: Layout
    halves: tuple[str, ...]


@dataclass(frozen=True)
class NamingTable:
    """What a table says. ``config`` has expressions as they were written.

    ``variants`` are the other forms in which its module comes; it is the first one itself. ``note``
    is said wherever a file is read by it.
    """

    name: str
    label: str
    about: str
    containers: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()
    buffers: Mapping[str, Buffer] = field(default_factory=dict)
    unused: tuple[Unused, ...] = ()
    variants: tuple[NamingTable, ...] = ()
    note: str = ""

    @property
    def forms(self) -> tuple[NamingTable, ...]:
        return (self, *self.variants)

    @cached_property
    def by_numberless(self) -> dict[str, list[Entry | Unused]]:
        """What has a name, by that name without its numbers."""
        found = dict[str, list[Entry | Unused]]()
        for one in (*self.entries, *self.unused):
            found.setdefault(numberless(LAYER.sub("0", one.theirs)), []).append(one)
        return found

    def places_all(self, names: Iterable[str]) -> bool:
        """Whether every name may have a place, as far as a quick look tells."""
        return all(numberless(n) in self.by_numberless or n in self.buffers for n in names)

    def storing_positions(self, kinds: Mapping[str, Any]) -> NamingTable:
        """The same where positions of these kinds are weights: a buffer of such a half is one."""
        buffers, entries = dict(self.buffers), list(self.entries)
        for name, buffer in self.buffers.items():
            stored = [half for half in buffer.halves if kinds.get(half) in STORED]
            ours = tuple(f"{half}.pos_embedding.weight" for half in stored)
            if ours:
                del buffers[name]
                entries.append(Entry(name, ours, buffer.layout))
        return replace(self, buffers=buffers, entries=tuple(entries))


def in_layer(theirs: str, layer: int) -> str:
    """Their name in a layer, of which the first is 0."""
    return LAYER.sub(lambda found: str(layer + int(found[1] or 0)), theirs)


def layer_in(name: str, theirs: str) -> int | None:
    """In which layer such a name is this one; 0 where it is in none, None where it is another."""
    first = LAYER.search(theirs)
    if first is None:
        return 0 if name == theirs else None
    number = re.match(r"\d+", name[first.start() :])
    layer = int(number[0]) - int(first[1] or 0) if number else -1
    return layer if layer >= 0 and in_layer(theirs, layer) == name else None


def numberless(name: str) -> str:
    """A name with every number of it as 0."""
    return re.sub(r"\d+", "0", name)
