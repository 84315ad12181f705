"""Reads what a MessagePack file of Flax says, skipping over the bytes of its arrays.

Flax stores an array as extension type 1 around (shape, name of the dtype, bytes), a NumPy number
as type 3 around the same, and an array above 1 GiB as a dict of flat pieces.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from convert.formats.arrays import check_lengths, check_shape, shown
from convert.formats.content import MAX_DEPTH, Leaf

ARRAY, COMPLEX, NUMBER = 1, 2, 3
MAX_VALUES = 10_000_000
CHUNKED = "__msgpack_chunked_array__"
DTYPES = {
    name: np.dtype(name)
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "complex64", "complex128",
    )
} | {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
}  # fmt: skip
FIXED = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
BINARY = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}
EXTENSION = {0xC7: ">B", 0xC8: ">H", 0xC9: ">I"}
EXTENSION_FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
TEXT = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
LIST = {0xDC: ">H", 0xDD: ">I"}
MAP = {0xDE: ">H", 0xDF: ">I"}


class ScanError(Exception):
    """What is wrong with a file."""


@dataclass(frozen=True, slots=True)
class StoredArray(Leaf):
    """An array whose bytes lie in one or more runs, each (first byte, bytes), in row order."""

    runs: tuple[tuple[int, int], ...]


def scan(path: Path, size: int) -> Any:
    """The whole tree of a file of ``size`` bytes, a StoredArray for each array."""
    with open(path, "rb") as file:
        scanner = _Scanner(file, 0, size, iter(range(MAX_VALUES)))
        content = scanner.value(0)
        if scanner.at != size:
            raise ScanError(f"{size - scanner.at} bytes follow after its content")
    return content


class _Scanner:
    """Positions in a file; nothing beyond ``end`` is ever read."""

    def __init__(self, file: BinaryIO, at: int, end: int, budget: Iterator[int]) -> None:
        self.file = file
        self.at = at
        self.end = end
        self.budget = budget

    def take(self, count: int) -> bytes:
        self.need(count)
        content = self.file.read(count)
        if len(content) != count:
            raise ScanError("it is truncated")
        self.at += count
        return content

    def need(self, count: int) -> None:
        if count > self.end - self.at:
            raise ScanError(f"it is truncated: {count} bytes announced, {self.end - self.at} left")

    def skip(self, count: int) -> None:
        self.need(count)
        self.at += count
        self.file.seek(self.at)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ScanError(f"it is nested more than {MAX_DEPTH} deep")
        if next(self.budget, None) is None:
            raise ScanError(f"it has more than {MAX_VALUES} values besides the bytes of arrays")
        code = self.take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 256
        if code in CONSTANTS:
            return CONSTANTS[code]
        if code in FIXED:
            return self.number(FIXED[code])
        return self._long_value(code, depth)

    def _long_value(self, code: int, depth: int) -> Any:
        if code < 0x90 or code in MAP:
            return self._map(code & 15 if code < 0x90 else self.number(MAP[code]), depth)
        if code < 0xA0 or code in LIST:
            return self._list(code & 15 if code < 0xA0 else self.number(LIST[code]), depth)
        if code < 0xC0 or code in TEXT:
            return self._text(code & 31 if code < 0xC0 else self.number(TEXT[code]))
        if code in BINARY:
            return self.take(self.number(BINARY[code]))
        if code in EXTENSION_FIXED:
            return self._extension(EXTENSION_FIXED[code], depth)
        if code in EXTENSION:
            return self._extension(self.number(EXTENSION[code]), depth)
        raise ScanError(f"byte {self.at - 1} is {code:#x}, which MessagePack never uses")

    def _text(self, count: int) -> str:
        return self.take(count).decode("utf-8")

    def _list(self, count: int, depth: int) -> list[Any]:
        self.need(count)
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> Any:
        self.need(2 * count)
        content: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if type(key) is not str or key in content:
                raise ScanError(f"key {shown(key)} comes twice or is no text")
            content[key] = self.value(depth + 1)
        return unchunked(content) if CHUNKED in content else content

    def _extension(self, count: int, depth: int) -> Any:
        kind = self.number(">b")
        self.need(count)
        inner = _Scanner(self.file, self.at, self.at + count, self.budget)
        if kind == COMPLEX:
            value = complex(*check_pair(inner.value(depth + 1)))
        elif kind in (ARRAY, NUMBER):
            value = inner.array(depth + 1)
        else:
            raise ScanError(f"it has an extension of type {kind}, which Flax never writes")
        if inner.at != inner.end:
            raise ScanError("an array is shorter than announced")
        self.at = inner.end
        return value

    def array(self, depth: int) -> StoredArray:
        """(shape, dtype, bytes), the bytes skipped."""
        if self.take(1)[0] != 0x93:
            raise ScanError("an array is not made of shape, type and bytes")
        shape, name = self.value(depth), self.value(depth)
        name = name.decode() if isinstance(name, bytes) else name
        if not isinstance(name, str) or name not in DTYPES:
            raise ScanError(f"an array is of type {shown(name)}; readable: {', '.join(DTYPES)}")
        dtype = DTYPES[name]
        code = self.take(1)[0]
        if code not in BINARY:
            raise ScanError("an array has no bytes")
        count = self.number(BINARY[code])
        array = StoredArray(check_shape(shape, dtype), dtype, ((self.at, count),))
        if array.header.size != count:
            raise ScanError(f"{array.header} needs {array.header.size} bytes, it has {count}")
        self.skip(count)
        return array


def check_pair(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or [type(part) for part in value] != [float, float]:
        raise ScanError("a complex number is not made of two numbers")
    return value[0], value[1]


def unchunked(content: dict[str, Any]) -> StoredArray:
    """The array that a dict of flat pieces is."""
    shape = check_lengths(_in_order(content.get("shape")))
    pieces = _in_order(content.get("chunks"))
    if not pieces or not all(isinstance(piece, StoredArray) for piece in pieces):
        raise ScanError("an array in pieces has something else among them")
    dtypes = {piece.dtype for piece in pieces}
    runs = tuple(run for piece in pieces for run in piece.runs)
    array = StoredArray(check_shape(shape, pieces[0].dtype), pieces[0].dtype, runs)
    if len(dtypes) > 1 or sum(count for _, count in runs) != array.header.size:
        raise ScanError(f"the pieces of {array.header} have other types or sizes")
    return array


def _in_order(content: Any) -> list[Any]:
    """The values of {"0": ..., "1": ...}."""
    numbers = [str(i) for i in range(len(content))] if isinstance(content, dict) else None
    if numbers is None or set(content) != set(numbers):
        raise ScanError("an array in pieces does not number them")
    return [content[number] for number in numbers]
