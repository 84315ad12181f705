"""Arrays by name that are made one at a time, when they are asked for."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Header:
    """The shape and the number format of an array that is not there yet."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Parts(Mapping[str, np.ndarray]):
    """{name: array} of which nothing is held: ``read(name)`` makes an array whenever it is asked.

    ``headers`` say what it will be, in the order of the names.
    """

    def __init__(self, headers: Mapping[str, Header], read: Callable[[str], np.ndarray]) -> None:
        self.headers, self._read = dict(headers), read

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.headers:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)


def changed(
    arrays: Mapping[str, np.ndarray], change: Callable[[Callable[[], np.ndarray]], np.ndarray]
) -> Parts:
    """The same as ``Parts``; ``change`` is given what reads one of them, and gives the array."""
    return Parts(headers_of(arrays), lambda name: change(lambda: arrays[name]))


def headers_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Header]:
    """Shape and number format of every array; nothing of ``Parts`` is read."""
    if isinstance(arrays, Parts):
        return arrays.headers
    return {name: Header(array.shape, array.dtype) for name, array in arrays.items()}


def checksums(weights: Mapping[str, np.ndarray]) -> dict[str, int]:
    """A number for each array, by which processes see whether they have read the same."""

    def checksum(array: np.ndarray) -> int:
        return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)

    return {name: checksum(array) for name, array in weights.items()}
