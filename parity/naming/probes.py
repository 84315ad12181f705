"""Probes of a module: what a change of some of its tensors does to its logits."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from parity.forward.ids import Ids
from parity.naming.patterns import Pattern, Unit, patterns_of
from parity.naming.subject import Subject

SILENT = 1e-9
LONG, ONE, LONG_SOURCE, LONG_TARGET = (4, 3), (1, 1), (4, 1), (1, 3)
BATCH, SPECIAL = 3, 4
KEPT = 20_000_000  # numbers of a module whose random arrays are kept
Shape = tuple[int, int]
Names = frozenset[str]
NOTHING: Names = frozenset()


class Rows(NamedTuple):
    """Some rows of a table, along an axis of its shape without axes of length 1."""

    axis: int
    numbers: tuple[int, ...]


class Probes:
    """Random weights for a module, the same in every layer, and what becomes of them.

    Tensors are named by their patterns. ``zero`` ones are all zeros, ``other`` ones have other
    random numbers. Everything is drawn anew from the seed, whatever was asked before.
    """

    def __init__(self, subject: Subject, seed: int, avoid: Collection[int] = ()) -> None:
        self.subject, self.seed = subject, seed
        self.patterns = {pattern.text: pattern for pattern in patterns_of(subject.shapes)}
        self.tokens = self._tokens(avoid)
        self.logits = cache(self._logits)
        self.keys = {text: key for key, text in enumerate(sorted(self.patterns))}
        small = sum(math.prod(shape) for shape in subject.shapes.values()) <= KEPT
        self.array = cache(self._array) if small else self._array

    def _tokens(self, avoid: Collection[int]) -> tuple[int, ...]:
        """Tokens of every vocabulary that are no special ones, as far as there are such."""
        flat = [p for p in self.patterns.values() if p.stack is None and len(p.squeezed) == 2]
        wide = [length for p in flat for length in p.squeezed if length != self.width]
        least = min(wide, default=self.width)
        usable = [token for token in range(least) if token not in avoid]
        return tuple(usable[min(SPECIAL, max(0, len(usable) - 8)) :])

    @cached_property
    def width(self) -> int:
        """The width D: the length that most tensors of layers have."""
        layered = [p for p in self.patterns.values() if p.stack is not None]
        lengths = [n for p in layered or self.patterns.values() for n in {*p.squeezed}]
        return max(sorted(set(lengths)), key=lengths.count)

    def ids(self, shape: Shape, turned: bool = False, without: int | None = None) -> Ids:
        """Ids that share no token between source and target; ``turned`` has another source.

        In place of the token ``without`` there is another one of its side.
        """
        draw = np.random.default_rng((self.seed, *shape))
        half = len(self.tokens) // 2
        target, source = np.array(self.tokens[:half]), np.array(self.tokens[half:])
        found = _columns(draw, len(source), shape[0])
        found = (found + 1) % len(source) if turned else found
        sides = [(source, found), (target, _columns(draw, half, shape[1]))]
        return Ids(*(_without(tokens[at], tokens, without) for tokens, at in sides))

    def _array(self, pattern: Pattern, salt: int = 0) -> np.ndarray:
        """Numbers around 1 for vectors, as for norms; matrices keep the size of what they get."""
        draw = np.random.default_rng((self.seed, self.keys[pattern.text], salt))
        if len(pattern.squeezed) < 2:
            return draw.uniform(0.5, 1.5, pattern.shape) * draw.choice((-1, 1), pattern.shape)
        if pattern.stack is None:
            return draw.normal(size=pattern.shape)
        return draw.normal(size=pattern.shape) * (1.5 / self.width**0.5)

    def weights(
        self,
        zero: Names = NOTHING,
        other: Names = NOTHING,
        rows: tuple[str, Rows] | None = None,
        minus: Names = NOTHING,
    ) -> dict[str, np.ndarray]:
        """An array for every tensor of the module."""
        found = dict[str, np.ndarray]()
        for text, pattern in self.patterns.items():
            array = self.array(pattern, int(text in other))
            if rows is not None and text == rows[0]:
                array = _with_rows(array, self.array(pattern, 1), pattern, rows[1])
            array = np.zeros_like(array) if text in zero else array
            array = -array if text in minus else array
            found.update(dict.fromkeys(pattern.names, array))
        return found

    def layered_weights(self, turned: bool = False) -> dict[str, np.ndarray]:
        """The same with numbers of its own in every layer; ``turned``: the last layer's first."""
        found = dict[str, np.ndarray]()
        for pattern in self.patterns.values():
            names = pattern.names[::-1] if turned else pattern.names
            found.update((name, self.array(pattern, k + 2)) for k, name in enumerate(names))
        return found

    def _logits(
        self,
        shape: Shape,
        zero: Names = NOTHING,
        other: Names = NOTHING,
        rows: tuple[str, Rows] | None = None,
        turned: bool = False,
        minus: Names = NOTHING,
        without: int | None = None,
    ) -> np.ndarray:
        ids = self.ids(shape, turned, without)
        return self.subject.logits(self.weights(zero, other, rows, minus), ids)

    def matters(self, names: Iterable[str], shape: Shape = LONG, zero: Names = NOTHING) -> bool:
        """Whether other numbers in some tensors change the logits."""
        changed = self.logits(shape, zero, frozenset(names))
        return apart(self.logits(shape, zero), changed)

    def row_matters(self, name: str, row: Rows, shape: Shape, there: bool = True) -> bool:
        """Whether a row of a table changes logits of other tokens than its own.

        Unless it is ``there``, its token is in no text.
        """
        (number,) = row.numbers
        without = None if there else number
        one = self.logits(shape, without=without)
        other = self.logits(shape, rows=(name, row), without=without)
        kept = np.setdiff1d(np.arange(one.shape[-1]), row.numbers)
        return apart(one[..., kept], other[..., kept])

    def own_column(self, name: str, rows: Rows, shape: Shape) -> bool:
        """Whether rows of a table change the logits of their tokens."""
        one, other = self.logits(shape), self.logits(shape, rows=(name, rows))
        columns = [n for n in rows.numbers if n < one.shape[-1]]
        return apart(one[..., columns], other[..., columns])

    def hears_source(self, zero: Names = NOTHING) -> bool:
        """Whether logits depend on the source."""
        return apart(self.logits(LONG, zero), self.logits(LONG, zero, turned=True))

    def hears_target(self, zero: Names = NOTHING) -> bool:
        """Whether logits depend on which target token there is."""
        found = self.logits(ONE, zero)
        return bool((np.ptp(found, axis=0) > SILENT * _size(found)).any())

    def mixes_target(self, zero: Names = NOTHING) -> bool:
        """Whether the last target token's logits depend on the tokens before it.

        Rows of a batch get one source and one last token.
        """
        ids = self.ids(LONG)
        source, target = ids.source.copy(), ids.target.copy()
        source[:], target[:, -1] = source[0], target[0, -1]
        target[1, 0] = next(t for t in self.tokens if t not in (target[0, 0], *source[0]))
        found = self.subject.logits(self.weights(zero), Ids(source, target))[:, -1]
        return bool((np.ptp(found, axis=0) > SILENT * _size(found)).any())


def _columns(draw: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Numbers below ``count`` (B, length); those of a column differ where there are enough."""
    columns = [np.resize(draw.permutation(count), BATCH) for _ in range(length)]
    return np.stack(columns, 1)


def _without(ids: np.ndarray, tokens: np.ndarray, token: int | None) -> np.ndarray:
    if token is None:
        return ids
    other = next((t for t in tokens if t != token), token)
    return np.where(ids == token, other, ids)


def apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether logits differ by more than rounding."""
    return distance(one, other) > SILENT


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference relative to the largest number; NaN anywhere is infinitely far."""
    if one.shape != other.shape:
        return float("inf")
    if not one.size:
        return 0.0
    found = float(np.max(np.abs(one - other))) / _size(one)
    return found if np.isfinite(found) else float("inf")


def _size(array: np.ndarray) -> float:
    return max(float(np.max(np.abs(array))), 1e-300)


def _with_rows(array: np.ndarray, other: np.ndarray, pattern: Pattern, rows: Rows) -> np.ndarray:
    flat, new = array.reshape(pattern.squeezed).copy(), other.reshape(pattern.squeezed)
    at = tuple(
        [n for n in rows.numbers if n < flat.shape[rows.axis]] if axis == rows.axis else slice(None)
        for axis in range(flat.ndim)
    )
    flat[at] = new[at]
    return flat.reshape(pattern.shape)


def names_of(units: Iterable[Unit]) -> Names:
    """The tensors of some modules."""
    return frozenset(pattern.text for unit in units for pattern in unit.patterns)
