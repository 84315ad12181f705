"""Arrays in the middle of files: claims checked before memory is taken, bytes copied once."""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.tensors import Header
from transformer_spec import Faults, UserError
from transformer_spec.errors import broken_link

MAX_DIMENSIONS = 64
MAX_BYTES = 2**62
BLOCK = 1 << 20


def check_lengths(values: Any, what: str = "shape") -> tuple[int, ...]:
    """A list or tuple of whole numbers that a file can count with; ValueError for another."""
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"its {what} is no list of numbers")
    if len(values) > MAX_DIMENSIONS:
        raise ValueError(f"its {what} has {len(values)} numbers; at most {MAX_DIMENSIONS}")
    if not all(type(value) is int and 0 <= value <= MAX_BYTES for value in values):
        raise ValueError(f"its {what} {shown(values)} is not made of whole numbers >= 0")
    return tuple(values)


def check_shape(shape: Any, dtype: np.dtype) -> tuple[int, ...]:
    """The shape as a tuple; ValueError unless NumPy could hold such an array."""
    lengths = check_lengths(shape)
    if math.prod(length or 1 for length in lengths) * dtype.itemsize > MAX_BYTES:
        raise ValueError(f"its shape {shown(lengths)} is larger than any memory")
    return lengths


def shown(value: Any, limit: int = 120) -> str:
    """A value of a file, or an error about one, for a message, cut short."""
    text = str(value) if isinstance(value, Exception) and str(value) else repr(value)
    return text if len(text) <= limit else text[:limit] + "..."


def dtype_faults(
    headers: Mapping[str, Header], known: Callable[[np.dtype], bool], possible: str
) -> Faults:
    """The arrays whose number format a container cannot hold."""
    faults = Faults()
    for name, header in headers.items():
        faults.require(known(header.dtype), f"{name!r}: {header}; possible: {possible}")
    return faults


def fill(path: Path, start: int, array: np.ndarray) -> None:
    """Fill a contiguous array with the bytes of a file from ``start`` on.

    UserError where the file cannot be read or ends before the array does.
    """
    rest = array.reshape(-1).view(np.uint8).data
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            while rest:
                count = file.readinto(rest)
                if not count:
                    raise UserError(f"{path} is truncated: it ends {len(rest)} bytes too early")
                rest = rest[count:]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_array(path: Path, start: int, header: Header) -> np.ndarray:
    """The array whose bytes lie in row order from ``start`` on."""
    array = np.empty(header.shape, header.dtype)
    fill(path, start, array)
    return array


def read_bytes(path: Path, start: int, count: int) -> bytes:
    """``count`` bytes of a file; the caller has checked that the file is that long."""
    return read_array(path, start, Header((count,), np.dtype(np.uint8))).tobytes()


def file_size(path: Path) -> int:
    """Bytes of an existing file; anything else is a UserError."""
    if not path.is_file():
        raise UserError(broken_link(path) or f"{path} does not exist or is no file")
    return path.stat().st_size


def crc_of_file(path: Path, start: int, size: int) -> int:
    """The CRC-32 of a range of a file, computed a block at a time."""
    value, block = 0, np.empty(min(size, BLOCK), np.uint8)
    for at in range(0, size, BLOCK):
        part = block[: min(BLOCK, size - at)]
        fill(path, start + at, part)
        value = zlib.crc32(part.data, value)
    return value


def blocks(array: np.ndarray, size: int = BLOCK) -> Iterator[np.ndarray]:
    """An array as flat pieces of at most ``size`` elements; in views where its layout allows it."""
    flat = array.reshape(-1, order="A")
    for start in range(0, flat.size, size):
        yield flat[start : start + size]
