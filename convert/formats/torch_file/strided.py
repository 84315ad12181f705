"""Tensors that are views of stored numbers: transposed, cut out or repeated, read as such."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convert.core.tensors import Header
from convert.formats.arrays import read_array

SPAN = 32 << 20


def last_element(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements behind its first one a view reaches; -1 for a view of nothing."""
    if 0 in shape:
        return -1
    return sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a view's elements lie side by side in row order."""
    step = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != step:
            return False
        step *= length
    return True


def read_strided(path: Path, start: int, header: Header, strides: Sequence[int]) -> np.ndarray:
    """The view whose first element is ``start`` bytes into a file; strides count elements.

    The array is in row order. Besides it, memory is taken for its numbers in the file's order
    where that is another one, or for ``SPAN`` bytes of a view with holes.
    """
    shape, dtype = header
    if 0 in shape:
        return np.empty(shape, dtype)
    if is_dense(shape, strides):
        return read_array(path, start, header)
    axes = [axis for axis, length in enumerate(shape) if length > 1 and strides[axis] > 0]
    axes.sort(key=lambda axis: -strides[axis])
    lengths, steps = [shape[axis] for axis in axes], [strides[axis] for axis in axes]
    found = _read_descending(path, start, Header(tuple(lengths), dtype), steps)
    found = found.transpose(np.argsort(axes)) if axes else found
    single = [shape[axis] if axis in axes else 1 for axis in range(len(shape))]
    return np.ascontiguousarray(np.broadcast_to(found.reshape(single), shape))


def _read_descending(path: Path, start: int, header: Header, steps: list[int]) -> np.ndarray:
    """A view whose strides fall from axis to axis; many bytes apart, it is read in groups."""
    lengths, dtype = header
    if is_dense(lengths, steps):
        return read_array(path, start, header)
    span = 1 + last_element(lengths, steps)
    if span * dtype.itemsize <= SPAN:
        flat = read_array(path, start, Header((span,), dtype))
        in_bytes = [step * dtype.itemsize for step in steps]
        return np.array(np.lib.stride_tricks.as_strided(flat, lengths, in_bytes), order="C")
    array = np.empty(lengths, dtype)
    row = steps[0] * dtype.itemsize
    group = max(1, SPAN // (2 * row))
    if group == 1 or group >= lengths[0]:
        for i in range(lengths[0]):
            part = Header(lengths[1:], dtype)
            array[i] = _read_descending(path, start + i * row, part, steps[1:])
        return array
    for i in range(0, lengths[0], group):
        part = Header((min(group, lengths[0] - i), *lengths[1:]), dtype)
        array[i : i + group] = _read_descending(path, start + i * row, part, steps)
    return array
