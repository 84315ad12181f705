"""The header of a safetensors file: 8 bytes of length, then JSON, then the arrays without gaps.

Every claim of a header is checked against the file before any array is read. Unlike the
``safetensors`` library, which keeps the last of two entries under one name, this reader refuses
such a file.
"""

import json
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from convert.core.tensors import Header
from convert.formats.arrays import (
    check_lengths,
    check_shape,
    dtype_faults,
    file_size,
    read_bytes,
    shown,
)
from transformer_spec import Faults, UserError

# In the order in which the library ranks them: a file holds the highest first.
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "C64": np.dtype(np.complex64),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
RANKS = {name: rank for rank, name in enumerate(DTYPES)}
METADATA = "__metadata__"
MAX_HEADER = 100_000_000


class FileHeader:
    """What a file says it holds: headers, where each array's bytes begin, and the metadata."""

    def __init__(self, path: Path) -> None:
        size = file_size(path)
        content, self.start = _read_json(path, size)
        self.metadata = _metadata(path, content.pop(METADATA, None))
        faults = Faults()
        self.headers: dict[str, Header] = {}
        self.offsets: dict[str, int] = {}
        for name, entry in content.items():
            try:
                name.encode()
                self.headers[name], self.offsets[name] = _entry(entry)
            except (ValueError, LookupError, TypeError) as error:
                faults.add(f"{name!r}: {error}")
        faults.raise_if_any(f"{path} has a damaged header")
        self._check_cover(path, size - self.start)

    def _check_cover(self, path: Path, size: int) -> None:
        """The arrays cover the rest of the file from end to end, each byte once."""
        end = 0
        for name in sorted(self.offsets, key=lambda name: (self.offsets[name], self._end(name))):
            if self.offsets[name] != end:
                word = "overlaps others" if self.offsets[name] < end else "leaves a gap before it"
                raise UserError(
                    f"{path} has a damaged header: {name!r} at bytes {self.offsets[name]} to "
                    f"{self._end(name)} {word}; expected to begin at {end}"
                )
            end = self._end(name)
        if end > size:
            raise UserError(f"{path} is truncated: its header lists {end} bytes, it has {size}")
        if end < size:
            raise UserError(f"{path} has {size - end} bytes that its header does not list")

    def _end(self, name: str) -> int:
        return self.offsets[name] + self.headers[name].size


def _read_json(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The JSON object at the beginning and the place where the arrays begin."""
    if size < 8:
        raise UserError(f"{path} is truncated or no safetensors file: it has {size} bytes")
    (length,) = struct.unpack("<Q", read_bytes(path, 0, 8))
    if length > min(size - 8, MAX_HEADER):
        raise UserError(
            f"{path} is truncated or no safetensors file: its header should have {length} bytes, "
            f"the file has {size}; a header has at most {MAX_HEADER}"
        )
    try:
        text = read_bytes(path, 8, length).decode("utf-8")
        content = json.loads(text, object_pairs_hook=_unique)
        content.items()
    except (ValueError, AttributeError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}") from error
    return content, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = sorted(repr(name) for name, count in counts.items() if count > 1)
        raise ValueError(f"its header names {', '.join(twice)} more than once")
    return content


def _metadata(path: Path, given: Any) -> dict[str, str]:
    if given is None:
        return {}
    try:
        for key, text in given.items():
            (key + text).encode()
    except (AttributeError, TypeError, ValueError) as error:
        message = f"{path} has a damaged header: {METADATA} is no mapping from text to text"
        raise UserError(message) from error
    return given


def _entry(entry: Any) -> tuple[Header, int]:
    """Header and first byte of one array; what is wrong with an entry is a ValueError."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError("it has no dtype, shape and data_offsets")
    name = entry["dtype"]
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"it is {shown(name)}; readable: {', '.join(DTYPES)}")
    dtype = DTYPES[name]
    offsets = check_lengths(entry["data_offsets"], "data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"its data_offsets {list(offsets)} are no begin and end")
    header = Header(check_shape(entry["shape"], dtype), dtype)
    if header.size != offsets[1] - offsets[0]:
        raise ValueError(f"{header} needs {header.size} bytes; its data_offsets {list(offsets)}")
    return header, offsets[0]


def header_bytes(
    headers: Mapping[str, Header], metadata: Mapping[str, str] | None
) -> tuple[bytes, dict[str, int]]:
    """The length, the JSON padded to 8 bytes, and where each array's bytes begin, in file order."""
    faults = dtype_faults(headers, NAMES.__contains__, ", ".join(DTYPES))
    faults.require(METADATA not in headers, f"{METADATA!r} is no possible name")
    faults.raise_if_any("safetensors cannot hold every array")
    ordered = sorted(headers, key=lambda name: (-RANKS[NAMES[headers[name].dtype]], name))
    content: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    offsets, end = {}, 0
    for name in ordered:
        shape, dtype = headers[name]
        offsets[name], end = end, end + headers[name].size
        place = [offsets[name], end]
        content[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": place}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offsets
