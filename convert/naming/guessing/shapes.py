"""What shapes say: the width of the model, how matrices lie, what a layer consists of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from convert.naming.guessing.parts import Part, Shape

OUT_IN, IN_OUT = "(out, in)", "(in, out)"
QUERY, KEY, VALUE, OUTPUT = "fcQ", "fcK", "fcV", "fcOut"
FIRST, SECOND, THIRD = "fc1", "fc2", "fc3"
RoleNames = tuple[str, ...]
# What an attention or a feed-forward network may consist of: roles of a tensor, its (out, in).
ATTENTIONS: Mapping[str, Mapping[RoleNames, tuple[str, str]]] = {
    "apart": {
        **dict.fromkeys(((QUERY,), (KEY,), (VALUE,)), ("A", "D")),
        (OUTPUT,): ("D", "A"),
    },
    "fused": {(QUERY, KEY, VALUE): ("3A", "D"), (OUTPUT,): ("D", "A")},
    "fused memory": {(QUERY,): ("A", "D"), (KEY, VALUE): ("2A", "D"), (OUTPUT,): ("D", "A")},
    "one block": {
        **dict.fromkeys(((QUERY,), (KEY,), (VALUE,)), ("B", "B")),
        (OUTPUT,): ("D", "D"),
    },
}
NETWORKS: Mapping[str, Mapping[RoleNames, tuple[str, str]]] = {
    "plain": {(FIRST,): ("F", "D"), (SECOND,): ("D", "F")},
    "gated": {(FIRST,): ("F", "D"), (SECOND,): ("D", "F"), (THIRD,): ("F", "D")},
    "fused gated": {(FIRST, THIRD): ("2F", "D"), (SECOND,): ("D", "F")},
}


@dataclass(frozen=True)
class Lying:
    """A matrix as (out, in), and the layout that says so."""

    size: tuple[int, int]
    layout: str


@dataclass(frozen=True)
class Slot:
    """A place of a layer that a tensor fills: in which sub-layer, as which of ours, how large."""

    place: str
    roles: RoleNames
    size: tuple[int, int]


@dataclass(frozen=True)
class Structure:
    """Of what a layer consists: its slots, and the widths A (of all heads) and F."""

    slots: tuple[Slot, ...]
    heads_dim: int
    inner_dim: int
    block: int | None = None


def width_of(parts: Iterable[Part]) -> int | None:
    """The model's width D: of the lengths of tables the one that most matrices of layers have.

    None where there is none.
    """
    votes, outside = Counter[int](), set[int]()
    for part in parts:
        if len(part.axes) > 1 and part.stack:
            votes.update(set(part.axes))
        elif len(part.axes) > 1:
            outside.update(part.axes)
    shared = [length for length in votes if length in outside]
    return max(shared, key=lambda length: (votes[length], -length), default=None)


def direction(parts: Sequence[Part]) -> tuple[str, bool]:
    """How matrices lie, and whether something says so: lengths of biases, or the word kernel."""
    votes = Counter(said for part in parts if (said := _said(part)))
    if votes:
        return max(votes, key=lambda layout: (votes[layout], layout)), True
    return OUT_IN, False


def _said(part: Part) -> str | None:
    """How a matrix lies, by its bias or its name."""
    if len(part.axes) != 2:
        return None
    (rows, columns), bias = part.axes, part.bias_shape
    if bias and rows != columns and len(bias) == 1 and bias[0] in part.axes:
        return OUT_IN if bias[0] == rows else IN_OUT
    return IN_OUT if part.name.rpartition(".")[2] == "kernel" else None


def lying(part: Part, width: int, usual: str) -> Lying | None:
    """A part as a matrix; None for what is none of width D and no block."""
    axes = part.axes
    if len(axes) == 2:
        layout = _said(part) or usual
        size = axes if layout == OUT_IN else axes[::-1]
        return Lying((size[0], size[1]), _with_units(layout, part.shape))
    if len(axes) == 3 and axes == part.shape and width in axes:
        return _per_head(axes, width)
    return None


def _per_head(axes: Shape, width: int) -> Lying:
    """A kernel with the heads apart: of queries, keys or values, or of the output."""
    whole = axes[0] * axes[1] * axes[2] // width
    if axes[2] == width:
        return Lying((width, whole), "(heads, dim, out)")
    kind = "(in, heads, dim)" if axes[0] == width else "(heads, in, dim)"
    return Lying((whole, width), kind)


def _with_units(layout: str, shape: Shape) -> str:
    """A layout with the axes of length 1 that a shape has."""
    words = layout.strip("()").split(", ")
    return f"({', '.join('1' if length == 1 else words.pop(0) for length in shape)})"


def structures(
    sizes: Sequence[tuple[int, int]], width: int, places: Sequence[str], network: str
) -> Iterator[Structure]:
    """What a layer with matrices of these sizes may consist of, the usual first.

    ``places`` are its attentions; ``network`` is what the feed-forward network is called.
    """
    seen = list[tuple[Slot, ...]]()
    there, lengths = Counter(sizes), sorted({n for size in sizes for n in size})
    lengths = [width, *(n for n in lengths if n != width)]
    for kinds in product(ATTENTIONS, repeat=len(places)):
        for plan, A, F in product(NETWORKS, lengths, lengths):
            if "one block" in kinds and (A >= width or width % A):
                continue
            known = {"A": A, "D": width, "F": F, "2A": 2 * A, "3A": 3 * A, "2F": 2 * F, "B": A}
            parts = [(place, ATTENTIONS[kind]) for place, kind in zip(places, kinds, strict=True)]
            slots = tuple(
                Slot(place, roles, (known[out], known[into]))
                for place, plan_of in (*parts, (network, NETWORKS[plan]))
                for roles, (out, into) in plan_of.items()
            )
            if Counter(slot.size for slot in slots) == there and slots not in seen:
                seen.append(slots)
                blocks = "one block" in kinds
                yield Structure(slots, width if blocks else A, F, A if blocks else None)
