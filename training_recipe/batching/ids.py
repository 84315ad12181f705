"""Many lists of token ids, or many texts, each kind in one flat array."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from training_recipe.text.frames import Frame

IdPair = tuple[list[int], list[int]]
TextPair = tuple[str, str]
BLOCK = 4096  # rows that are read together
BROKEN = "surrogatepass"  # a lone surrogate of a command line is a character too


class _Growing:
    """Rows that are added one after the other."""

    def __init__(self, typecode: str) -> None:
        self.flat, self.ends = array(typecode), array("q", [0])

    def end_row(self) -> None:
        self.ends.append(len(self.flat))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All rows without a gap, and where each begins and the last ends; nothing is copied."""
        return np.frombuffer(self.flat, self.flat.typecode), np.frombuffer(self.ends, np.int64)


@dataclass(frozen=True, eq=False)
class Ids:
    """Lists of ids: list n is ``flat[bounds[n] : bounds[n + 1]]``."""

    flat: np.ndarray  # int32
    bounds: np.ndarray  # (N + 1,) int64

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> Ids:
        """The same lists; each is read once, and none is kept."""
        growing = _Growing("i")
        for row in rows:
            growing.flat.fromlist(list(row))
            growing.end_row()
        return cls(*growing.arrays())

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64: how long each list is."""
        return np.diff(self.bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, len(self), BLOCK):
            bounds = self.bounds[first : first + BLOCK + 1]
            block = self.flat[bounds[0] : bounds[-1]].tolist()
            ends = (bounds - bounds[0]).tolist()
            for begin, end in zip(ends, ends[1:], strict=False):
                yield block[begin:end]

    def chosen(self, wanted: np.ndarray) -> Ids:
        """The lists that are wanted: (N,) of bool."""
        lengths = self.lengths
        bounds = np.concatenate(([0], np.cumsum(lengths[wanted]))).astype(np.int64)
        return Ids(self.flat[np.repeat(wanted, lengths)], bounds)

    def padded(
        self, members: np.ndarray, rows: int, length: int, pad_id: int, frame: Frame
    ) -> tuple[np.ndarray, np.ndarray]:
        """The chosen lists in a frame as (rows, length) int32, padding on the right and below.

        The second array is how long each is, its frame included.
        """
        before, columns = len(frame.before), np.arange(length)
        begins = self.bounds[members, None]
        ends = before + self.bounds[members + 1] - self.bounds[members]
        result = np.full((rows, length), pad_id, np.int32)
        chosen = result[: len(members)]
        own = (columns >= before) & (columns < ends[:, None])
        chosen[own] = self.flat[(begins + columns - before)[own]]
        chosen[:, :before] = frame.before
        for place, index in enumerate(frame.after):
            chosen[np.arange(len(members)), ends + place] = index
        return result, ends + len(frame.after)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of id lists, each side in flat arrays."""

    source: Ids
    target: Ids

    @classmethod
    def of(cls, pairs: Iterable[IdPair]) -> Pairs:
        """The same pairs; each is read once, and none is kept."""
        if isinstance(pairs, Pairs):
            return pairs
        source, target = _Growing("i"), _Growing("i")
        for one, other in pairs:
            source.flat.fromlist(one)
            target.flat.fromlist(other)
            source.end_row()
            target.end_row()
        return cls(Ids(*source.arrays()), Ids(*target.arrays()))

    @property
    def sides(self) -> tuple[Ids, Ids]:
        return self.source, self.target

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[IdPair]:
        return zip(self.source, self.target, strict=True)

    def chosen(self, wanted: np.ndarray) -> Pairs:
        """The pairs that are wanted: (N,) of bool."""
        return Pairs(self.source.chosen(wanted), self.target.chosen(wanted))


@dataclass(frozen=True, eq=False)
class Texts:
    """Pairs of texts, each side in one array of UTF-8."""

    sides: tuple[tuple[np.ndarray, np.ndarray], ...]

    @classmethod
    def of(cls, pairs: Iterable[TextPair]) -> Texts:
        """The same texts; each is read once, and none is kept."""
        both = _Growing("B"), _Growing("B")
        for pair in pairs:
            for growing, text in zip(both, pair, strict=True):
                growing.flat.frombytes(text.encode("utf-8", BROKEN))
                growing.end_row()
        return cls(tuple(growing.arrays() for growing in both))

    def side(self, number: int) -> Iterator[str]:
        """The texts of one side."""
        flat, bounds = self.sides[number]
        for first in range(0, len(bounds) - 1, BLOCK):
            ends = bounds[first : first + BLOCK + 1].tolist()
            for begin, end in zip(ends, ends[1:], strict=False):
                yield flat[begin:end].tobytes().decode("utf-8", BROKEN)


def either(pairs: Pairs, others: Pairs, wanted: np.ndarray) -> Pairs:
    """The pairs, but those of ``others`` that are wanted, (N,) of bool."""
    if not wanted.any():
        return pairs
    both = zip(pairs, others, wanted.tolist(), strict=True)
    return Pairs.of(other if take else own for own, other, take in both)
