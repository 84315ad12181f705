"""The best assignment of a few things to a few places."""

from __future__ import annotations

from collections.abc import Sequence

IMPOSSIBLE = float("-inf")


def assign(scores: Sequence[Sequence[float]], left_out: float = -100.0) -> list[int | None]:
    """For each row its column, no column twice, with the largest sum; None for a row left out.

    ``left_out`` is what it counts to give a row no column; IMPOSSIBLE where every row has one.
    """
    columns = len(scores[0]) if scores else 0
    best: dict[int, tuple[float, tuple[int | None, ...]]] = {0: (0.0, ())}
    for row in scores:
        found = dict[int, tuple[float, tuple[int | None, ...]]]()
        for taken, (total, chosen) in best.items():
            if left_out > IMPOSSIBLE:
                _keep(found, taken, total + left_out, (*chosen, None))
            for column in range(columns):
                if not taken & 1 << column and row[column] > IMPOSSIBLE:
                    place = taken | 1 << column
                    _keep(found, place, total + row[column], (*chosen, column))
        best = found
    return list(max(best.values(), key=lambda pair: pair[0])[1])


def _keep(
    found: dict[int, tuple[float, tuple[int | None, ...]]],
    taken: int,
    total: float,
    chosen: tuple[int | None, ...],
) -> None:
    if taken not in found or total > found[taken][0]:
        found[taken] = total, chosen
