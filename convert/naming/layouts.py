"""Layouts: the axes of a tensor of theirs, in words, and the operation that makes them ours.

``(in, heads, dim)`` names an axis after the other; ``(parts heads dim, in)`` has a first axis in
which three words lie inside each other, the last one fastest. Ours are ``(out, in)``.

Words: ``out`` and ``in`` of a product, ``heads`` and ``dim`` of attention (H and A), ``parts``
where one tensor holds several of ours, ``rows`` and ``width`` of a table, ``width`` of a norm,
``1`` an axis of length 1, ``one`` a single number for all features (``()`` where it has no axis),
``block`` a square that every head uses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convert.core.operations import (
    COPY,
    TRANSPOSE,
    Arrays,
    Chain,
    Duplicate,
    Operation,
    RuleError,
    Shape,
    Shapes,
    same_dtype,
)
from convert.core.tensors import as_bytes
from transformer_spec import TransformerConfig, UserError

Axes = tuple[tuple[str, ...], ...]
PARTS, ONE, BLOCK, UNIT = "parts", "one", "block", "1"
QUERY = re.compile(r"\.fc[QKV]\.(weight|bias)$")
# Ours, by the end of a canonical name.
OURS: tuple[tuple[str, Axes], ...] = (
    (r"pos_embedding\.weight", (("rows",), ("width",))),
    (r"embedding\.weight", (("rows",), ("width",))),
    (r"relative_bias\.weight", (("rows",), ("heads",))),
    (r"fc[QKV]\.weight", (("heads", "dim"), ("in",))),
    (r"fc[QKV]\.bias", (("heads", "dim"),)),
    (r"fcOut\.weight", (("out",), ("heads", "dim"))),
    (r"(fc[A-Za-z0-9]+|finalFc)\.weight", (("out",), ("in",))),
    (r"(fc[A-Za-z0-9]+|finalFc)\.bias", (("out",),)),
    (r"(layerNorm\d|final_norm|embedding_norm)\.(weight|bias)", (("width",),)),
)
WORDS = ("in", "out", "heads", "dim", "rows", "width", PARTS, ONE, BLOCK, UNIT)


@dataclass(frozen=True)
class Layout:
    """The axes of a tensor of theirs; ``text`` is as it was written."""

    text: str
    axes: Axes

    @property
    def words(self) -> list[str]:
        return [word for axis in self.axes for word in axis if word != UNIT]

    @property
    def is_one(self) -> bool:
        """Whether there is a single number."""
        return self.words in ([], [ONE])

    def without(self, *words: str) -> Layout:
        """The same with axes that consist of such words gone: what a bias has of its matrix."""
        axes = tuple(axis for axis in self.axes if not set(axis) <= set(words))
        return Layout(shown(axes), axes)


def shown(axes: Axes) -> str:
    return f"({', '.join(' '.join(axis) for axis in axes)})"


def parse_layout(text: str) -> Layout:
    """The layout of a text such as ``(in, heads, dim)``; what is none is a UserError."""
    if text.strip() == "()":
        return Layout("()", ())
    inner = re.fullmatch(r"\s*\(\s*(.+?)\s*\)\s*", text)
    axes = tuple(tuple(axis.split()) for axis in inner[1].split(",")) if inner else ()
    words = [word for axis in axes for word in axis]
    unknown = sorted({word for word in words if word not in WORDS})
    if not axes or not all(axes) or unknown:
        what = f" has unknown words {', '.join(unknown)};" if unknown else " is no layout;"
        raise UserError(
            f"{text!r}{what} write axes as in '(out, in)', '(in, heads, dim)' or "
            f"'(parts heads dim, in)' with the words {', '.join(WORDS)}"
        )
    twice = {word for word in words if words.count(word) > 1} - {UNIT, BLOCK}
    if twice:
        raise UserError(f"{text!r} has {', '.join(sorted(twice))} twice")
    return Layout(text, axes)


def our_axes(ours: str, words: list[str]) -> Axes:
    """The axes of a canonical name, with heads apart only where theirs have them apart."""
    axes = next(axes for end, axes in OURS if re.search(rf"(^|\.){end}$", ours))
    if "heads" in words or ("heads",) in axes:
        return axes
    whole = "out" if QUERY.search(ours) else "in"
    return tuple((whole,) if axis == ("heads", "dim") else axis for axis in axes)


def usual_layout(ours: str) -> Layout:
    """The layout that needs no telling: ours."""
    axes = our_axes(ours, [])
    return Layout(shown(axes), axes)


def layout_fault(layout: Layout, ours: str, count: int) -> str | None:
    """Why a layout cannot be that of a tensor that holds ``count`` of ours; None where it can."""
    words = layout.words
    if layout.is_one or BLOCK in words:
        wanted = our_axes(ours, [])
        norm, head = wanted == (("width",),), bool(QUERY.search(ours))
        blocks = words == [BLOCK] * len(wanted) and UNIT not in layout.text
        fits = norm if layout.is_one else head and blocks
        return None if fits and count == 1 else f"{layout.text} is not for {ours}"
    wanted = [word for axis in our_axes(ours, words) for word in axis]
    wanted += [PARTS] if PARTS in words else []
    if sorted(words) != sorted(wanted):
        return f"{layout.text} does not have the axes of {ours}: {', '.join(wanted)}"
    if PARTS in words and count == 1:
        return f"{layout.text} has parts, and there is one target alone"
    return None


def operation_of(layout: Layout, ours: str, count: int, config: TransformerConfig) -> Operation:
    """What makes a tensor of a layout into ``count`` ones of ours, of which ``ours`` is one."""
    words = layout.words
    if layout.is_one:
        return OneForAll(config.hidden_dim, (1,) * len(layout.axes))
    if BLOCK in words:
        return SharedBlock(config.num_heads)
    wanted = our_axes(ours, words)
    if PARTS not in words and count > 1:
        alone = operation_of(layout, ours, 1, config)
        return Duplicate(count) if alone is COPY else Chain(alone, Duplicate(count))
    if layout.axes == wanted:
        return COPY
    if layout.axes == wanted[::-1] and all(len(axis) == 1 for axis in wanted):
        return TRANSPOSE
    known = {"heads": config.num_heads, "dim": config.head_dim, PARTS: count}
    return Rearranged(layout, wanted, known)


def word_lengths(layout: Layout, shape: Shape, known: Mapping[str, int]) -> dict[str, int]:
    """The length of every word in an array's shape; what does not fit is a RuleError."""
    if len(shape) != len(layout.axes):
        raise RuleError(f"shape {list(shape)} has not the axes {layout.text}")
    found = {**known, UNIT: 1}
    for axis, length in zip(layout.axes, shape, strict=True):
        open_words = [word for word in axis if word not in found]
        rest = math.prod(found[word] for word in axis if word in found)
        if len(open_words) == 1 and rest and length % rest == 0:
            found[open_words[0]] = length // rest
        elif open_words or rest != length:
            told = ", ".join(f"{word} {found[word]}" for word in axis if word in found)
            raise RuleError(
                f"shape {list(shape)} does not fit {layout.text}"
                + (f" with {told}" if told else "")
            )
    return found


class Rearranged(Operation):
    """One array with its axes taken apart, put in our order, and cut into parts; exact."""

    reversed_label = "laid out as theirs"

    def __init__(self, theirs: Layout, ours: Axes, known: Mapping[str, int]) -> None:
        self.theirs, self.ours = theirs, ours
        self.parts = known[PARTS] if PARTS in theirs.words else 0
        self.known = {word: known[word] for word in known if word in theirs.words}
        self.label = f"laid out from {theirs.text}"
        order = [PARTS] * bool(self.parts) + [word for axis in ours for word in axis]
        # Axes of length 1 come last, where a reshape drops them.
        words = [word for axis in theirs.axes for word in axis]
        units = [at for at, word in enumerate(words) if word == UNIT]
        self.order = [words.index(word) for word in order] + units

    def forward(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        lengths = word_lengths(self.theirs, array.shape, self.known)
        apart = array.reshape([lengths[w] for axis in self.theirs.axes for w in axis])
        shapes = self.forward_shapes(array.shape)
        moved = apart.transpose(self.order)
        parts = moved if self.parts else moved[None]
        return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        lengths = self._our_lengths(*(array.shape for array in arrays))
        words = [w for axis in self.theirs.axes for w in axis]
        stacked = np.stack(same_dtype(arrays)) if self.parts else arrays[0]
        apart = stacked.reshape([lengths[words[at]] for at in self.order])
        back = apart.transpose(np.argsort(self.order))
        return (back.reshape(self.inverse_shapes(*(array.shape for array in arrays))[0]),)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        lengths = word_lengths(self.theirs, shape, self.known)
        mine = tuple(math.prod(lengths[word] for word in axis) for axis in self.ours)
        return (mine,) * max(self.parts, 1)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        lengths = self._our_lengths(*shapes)
        return (tuple(math.prod(lengths[w] for w in axis) for axis in self.theirs.axes),)

    def _our_lengths(self, *shapes: Shape) -> dict[str, int]:
        if len(shapes) != max(self.parts, 1) or len(set(shapes)) != 1:
            raise RuleError(f"{self.parts} equal shapes are one, not {list(map(list, shapes))}")
        ours = Layout(shown(self.ours), self.ours)
        known = {word: n for word, n in self.known.items() if word in ours.words}
        return word_lengths(ours, shapes[0], known) | {PARTS: self.parts}


class OneForAll(Operation):
    """One number for all ``width`` features; the reverse takes features that are all equal."""

    label, reversed_label = "one number for all features", "all features as one number"
    reversed_compares = True
    moments = False

    def __init__(self, width: int, shape: Shape = (1,)) -> None:
        self.width, self.shape = width, shape

    def forward(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        self.forward_shapes(array.shape)
        return (np.repeat(array.reshape(1), self.width),)

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        if len({bytes(as_bytes(number)) for number in array.reshape(-1, 1)}) != 1:
            raise RuleError("features have numbers of their own, and theirs have one for all")
        return (array[:1].reshape(self.shape),)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        if shape != self.shape:
            raise RuleError(f"shape {list(shape)} is not {list(self.shape)}, one number")
        return ((self.width,),)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        if shapes != ((self.width,),):
            raise RuleError(f"{list(map(list, shapes))} is not one shape of {self.width} features")
        return (self.shape,)


class SharedBlock(Operation):
    """One square (A, A), or bias (A,), that every head uses for its own features.

    Ours is the matrix with that square along its diagonal; the reverse refuses any other.
    """

    label, reversed_label = "one block for all heads", "all heads as one block"
    reversed_compares = True
    moments = False

    def __init__(self, heads: int) -> None:
        self.heads = heads

    def forward(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        (shape,) = self.forward_shapes(array.shape)
        if array.ndim == 1:
            return (np.tile(array, self.heads),)
        A, whole = len(array), np.zeros(shape, array.dtype)
        for head in range(self.heads):
            whole[head * A : (head + 1) * A, head * A : (head + 1) * A] = array
        return (whole,)

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        (shape,) = self.inverse_shapes(array.shape)
        block = array[tuple(slice(0, length) for length in shape)]
        if not np.array_equal(as_bytes(self.forward(block)[0]), as_bytes(array)):
            raise RuleError("heads have numbers of their own, and theirs have one block for all")
        return (block,)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        if len(set(shape)) != 1:
            raise RuleError(f"shape {list(shape)} is no square block")
        return (tuple(length * self.heads for length in shape),)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        if any(length % self.heads for length in shape):
            raise RuleError(f"shape {list(shape)} has no {self.heads} blocks")
        return (tuple(length // self.heads for length in shape),)
