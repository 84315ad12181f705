"""A few (rows, source length, target length) shapes that hold all pairs with little padding."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Box:
    """Pairs that are batched together: a rectangle of the (source length, target length) plane.

    ``source`` and ``target`` are the longest lengths in it, ``members`` the pairs' indices.
    """

    members: np.ndarray
    source: int
    target: int
    budget: int

    @property
    def batches(self) -> int:
        """Number of batches, each of at most ``budget // max(source, target)`` rows."""
        limit = max(1, self.budget // max(self.source, self.target))
        return -(-len(self.members) // limit)

    @property
    def rows(self) -> int:
        """Rows of every batch: the pairs spread evenly, so that the last batch is nearly full."""
        return -(-len(self.members) // self.batches)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.rows, self.source, self.target

    @property
    def cost(self) -> int:
        return int(_cost(len(self.members), self.source, self.target, self.budget))


def _cost(
    pairs: np.ndarray | int, source: np.ndarray | int, target: np.ndarray | int, budget: int
) -> np.ndarray:
    """Entries of the batches of some pairs, each batch counted as if it were full.

    Counting so keeps small boxes, which make small and so noisy batches, from paying off.
    """
    rows = np.maximum(1, budget // np.maximum(source, target))
    return -(-pairs // rows) * rows * (source + target)


def partition(source: np.ndarray, target: np.ndarray, budget: int, max_shapes: int) -> list[Box]:
    """At most ``max_shapes`` boxes for pairs of the given lengths (both (N,), at least 1).

    Greedy: from one box of all pairs, the cut that saves the most entries is made again and again
    until there are enough boxes or no cut saves anything.
    """
    everything = np.arange(len(source))
    boxes = [Box(everything, int(source.max()), int(target.max()), budget)]
    cuts = [_best_cut(boxes[0], source, target)]
    while len(boxes) < max_shapes:
        chosen = max(range(len(boxes)), key=lambda i: cuts[i][0])
        if cuts[chosen][0] <= 0:
            break
        _, axis, length = cuts[chosen]
        halves = list(_split(boxes[chosen], (source, target), axis, length))
        boxes[chosen : chosen + 1] = halves
        cuts[chosen : chosen + 1] = [_best_cut(half, source, target) for half in halves]
    return boxes


def _best_cut(box: Box, source: np.ndarray, target: np.ndarray) -> tuple[int, int, int]:
    """(entries saved, axis, longest length below the cut) of the best cut of a box."""
    lengths = source[box.members], target[box.members]
    options = [(*_best_cut_along(box, lengths[a], lengths[1 - a]), a) for a in (0, 1)]
    saved, length, axis = max(options, key=lambda option: option[0])
    return saved, axis, length


def _best_cut_along(box: Box, along: np.ndarray, across: np.ndarray) -> tuple[int, int]:
    """(entries saved, longest length below the cut) of the best cut across one axis.

    For every length at once: how many pairs are that short, how many longer, and the longest
    length of either group on the other axis.
    """
    counts = np.bincount(along)
    widest = np.zeros(len(counts), np.int64)
    np.maximum.at(widest, along, across)
    lengths = np.flatnonzero(counts)
    below = np.cumsum(counts[lengths])[:-1]
    if not len(below):
        return 0, 0
    low = np.maximum.accumulate(widest[lengths])[:-1]
    high = np.maximum.accumulate(widest[lengths][::-1])[::-1][1:]
    split_cost = _cost(below, lengths[:-1], low, box.budget)
    split_cost += _cost(len(along) - below, lengths[-1], high, box.budget)
    best = int(np.argmin(split_cost))
    return box.cost - int(split_cost[best]), int(lengths[best])


def _split(
    box: Box, lengths: tuple[np.ndarray, np.ndarray], axis: int, longest: int
) -> Iterator[Box]:
    short = lengths[axis][box.members] <= longest
    for members in (box.members[short], box.members[~short]):
        longest_source, longest_target = (int(side[members].max()) for side in lengths)
        yield Box(members, longest_source, longest_target, box.budget)
