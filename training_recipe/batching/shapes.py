"""A few (rows, source length, target length) shapes that hold all pairs with little padding."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Lengths are counted in this many classes at most, so that many or long pairs are planned fast.
LENGTH_CLASSES = 64
NEAR = range(-3, 4)
# Shares of the budget for which the boxes are best at first: moving ends where no move saves
# anything, which by chance is a hundredth worse than elsewhere.
BEGINNINGS = (1.0, 0.99, 0.98, 0.97, 0.96)
NOWHERE = 1 << 40  # what a pair costs that no shape holds


@dataclass(frozen=True, eq=False)
class Box:
    """Pairs that are batched together.

    ``source`` and ``target`` are the longest lengths in it, ``members`` the pairs' indices.
    """

    members: np.ndarray
    source: int
    target: int
    budget: int

    @property
    def batches(self) -> int:
        """Number of batches, each of at most ``budget // max(source, target)`` rows."""
        return -(-len(self.members) // int(_rows(max(self.source, self.target), self.budget)))

    @property
    def rows(self) -> int:
        """Rows of every batch: the pairs spread evenly, so that the last batch is nearly full."""
        return -(-len(self.members) // self.batches)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.rows, self.source, self.target


def _rows(longest: np.ndarray | int, budget: int) -> np.ndarray:
    return np.maximum(1, budget // np.asarray(longest))


class Cells(NamedTuple):
    """The different (source, target) length classes of all pairs, and how many pairs have each.

    A class holds ``width`` lengths and is named by the longest, divided by ``width``.
    """

    classes: np.ndarray  # (M, 2)
    counts: np.ndarray  # (M,)
    width: int
    budget: int

    def prices(self, corners: np.ndarray) -> np.ndarray:
        """(M, N): what a pair of each cell costs in each corner (N, 2), NOWHERE where too long.

        A price is the corner's entries times N plus the corner's number: no two are the same.
        """
        columns = [self.prices_of(corners, number) for number in range(len(corners))]
        return np.stack(columns, 1)

    def prices_of(self, corners: np.ndarray, number: int) -> np.ndarray:
        """(M,): the same for one corner."""
        source, target = corners[number]
        holds = (self.classes[:, 0] <= source) & (self.classes[:, 1] <= target)
        return np.where(holds, (source + target) * len(corners) + number, NOWHERE)

    def cost(self, corners: np.ndarray, cheapest: np.ndarray) -> int:
        """Entries of all batches, each counted as if it were full, in units of ``width``.

        ``cheapest`` is each cell's lowest price. Counting so keeps small boxes, which make small
        and so noisy batches, from paying off.
        """
        if cheapest.max() == NOWHERE:
            return NOWHERE
        pairs = np.bincount(cheapest % len(corners), self.counts, len(corners)).astype(np.int64)
        return int(full_batches(pairs, corners.max(1), corners.sum(1), self).sum())


def full_batches(
    pairs: np.ndarray, longest: np.ndarray, sides: np.ndarray, cells: Cells
) -> np.ndarray:
    """Entries of the full batches that hold so many pairs, source and target together."""
    rows = _rows(longest * cells.width, cells.budget)
    return -(-pairs // rows) * rows * sides


def partition(source: np.ndarray, target: np.ndarray, budget: int, max_shapes: int) -> list[Box]:
    """At most ``max_shapes`` boxes for pairs of the given lengths (both (N,), at least 1).

    Every pair goes into the cheapest box that holds it. The boxes' corners begin as the best ladder
    of ranges of the longer side, and move while that saves entries; of what several such beginnings
    come to, the one with the fewest entries is taken.
    """
    cells, members = _cells(source, target, budget)
    begun = (_begun(cells, max_shapes, share) for share in BEGINNINGS)
    plans = [_boxes(_settled(corners, cells), cells, members, source, target) for corners in begun]
    return min(plans, key=entries)


def _begun(cells: Cells, most: int, share: float) -> np.ndarray:
    """The corners that are best for a share of the budget."""
    if share == 1:
        return _ladder(cells, most)
    smaller = cells._replace(budget=int(share * cells.budget))
    return _settled(_ladder(smaller, most), smaller)


def _boxes(
    corners: np.ndarray,
    cells: Cells,
    members: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
) -> list[Box]:
    chosen = cells.prices(corners).argmin(1)[members]
    groups = (np.flatnonzero(chosen == number) for number in range(len(corners)))
    return [
        Box(group, int(source[group].max()), int(target[group].max()), cells.budget)
        for group in groups
        if len(group)
    ]


def entries(boxes: list[Box]) -> int:
    """Tokens and padding of all batches."""
    return sum(box.batches * box.rows * (box.source + box.target) for box in boxes)


def _cells(source: np.ndarray, target: np.ndarray, budget: int) -> tuple[Cells, np.ndarray]:
    """The cells of all pairs, and the number of each pair's cell."""
    width = -(-int(max(source.max(), target.max())) // LENGTH_CLASSES)
    classes = np.stack([-(-source // width), -(-target // width)], 1).astype(np.int64)
    different, members, counts = np.unique(classes, axis=0, return_inverse=True, return_counts=True)
    return Cells(different, counts, width, budget), members.ravel()


def _ladder(cells: Cells, most: int) -> np.ndarray:
    """The corners (N, 2) of the cheapest cut of the longer side's classes into ``most`` ranges.

    Dynamic programming: the cheapest way to cover the classes below ``end`` by so many ranges.
    """
    costs, corners = _ranges(cells)
    best, steps = costs[0], []
    for _ in range(1, most):
        through = best[:, None] + costs
        begins = through.argmin(0)
        better = through.min(0) < best
        steps.append(np.where(better, begins, 0))
        best = np.minimum(best, through.min(0))
    return np.array(list(_walked_back(steps, corners)))


def _ranges(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """For every range [begin, end) of classes of the longer side its cost and its corner."""
    longer = cells.classes.max(1)
    size = int(longer.max()) + 1
    pairs, longest = np.zeros(size, np.int64), np.zeros((size, 2), np.int64)
    np.add.at(pairs, longer, cells.counts)
    np.maximum.at(longest, longer, cells.classes)
    costs = np.full((size + 1, size + 1), NOWHERE)
    corners = np.zeros((size + 1, size + 1, 2), np.int64)
    for begin in range(size):
        reached = np.maximum.accumulate(longest[begin:])
        corners[begin, begin + 1 :] = reached
        sides = np.maximum(reached.max(1), 1), reached.sum(1)
        costs[begin, begin + 1 :] = full_batches(pairs[begin:].cumsum(), *sides, cells)
    return costs, corners


def _walked_back(steps: list[np.ndarray], corners: np.ndarray) -> Iterator[np.ndarray]:
    """The corners of the ranges that were chosen, from the longest."""
    end = len(corners) - 1
    for begins in reversed(steps):
        begin = int(begins[end])
        if begin:
            yield corners[begin, end]
            end = begin
    yield corners[0, end]


def _settled(corners: np.ndarray, cells: Cells) -> np.ndarray:
    """The corners, each moved a little again and again until no move saves anything."""
    best, before = cells.cost(corners, cells.prices(corners).min(1)), None
    while before != best:
        before = best
        for number in range(len(corners)):
            others = cells.prices(corners)
            others[:, number] = NOWHERE
            others = others.min(1)
            for moved in _moved(corners, number):
                own = cells.prices_of(moved, number)
                cost = cells.cost(moved, np.minimum(others, own))
                if cost < best:
                    corners, best = moved, cost
    return corners


def _moved(corners: np.ndarray, number: int) -> Iterator[np.ndarray]:
    """The corners with one of them a little longer or shorter."""
    for move in ((source, target) for source in NEAR for target in NEAR if source or target):
        moved = corners.copy()
        moved[number] += move
        if moved[number].min() > 0:
            yield moved
