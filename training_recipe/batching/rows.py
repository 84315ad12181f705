"""Batches whose rows go to several devices: filled up to a multiple, then cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training_recipe.batching.batches import Batch


def filled_up(array: np.ndarray, multiple: int, filler: int) -> np.ndarray:
    """(B, N) with rows of ``filler`` below, so that ``multiple`` divides their number.

    Features (B, W, M) have rows of zeros.
    """
    missing = -len(array) % multiple
    if not missing:
        return array
    widths = [(0, missing), *[(0, 0)] * (array.ndim - 1)]
    return np.pad(array, widths, constant_values=filler if array.dtype.kind in "iu" else 0)


def with_rows_of(batch: Batch, multiple: int) -> Batch:
    """A batch with rows of padding below, so that ``multiple`` divides the number of its rows."""
    fill = (filled_up(a, multiple, batch.pad_id) for a in batch.arrays)
    source, target_in, target_out = fill
    return replace(batch, source=source, target_in=target_in, target_out=target_out)


def own_rows(rows: int, index: int, count: int) -> slice:
    """Which of so many rows, a multiple of ``count``, are those of one of ``count`` devices."""
    each = rows // count
    return slice(index * each, (index + 1) * each)


def share(batch: Batch, index: int, count: int) -> tuple[Batch, int]:
    """One device's rows of a batch, which is filled up for ``count`` devices, and its first row.

    ``tokens`` of what is returned are its own, not the batch's.
    """
    whole = with_rows_of(batch, count)
    rows = own_rows(len(whole.source), index, count)
    source, target_in, target_out = (array[rows] for array in whole.arrays)
    part = replace(whole, source=source, target_in=target_in, target_out=target_out)
    return part, rows.start
