"""The safetensors container: one file, or shards with an index.

The ``safetensors`` library reads and checks headers; numbers are read from their places, since the
pages that the library maps would stay in memory. Files are the same, byte for byte, as the library
writes them (with several keys of metadata: sorted), but few arrays are in memory at a time.
"""

import functools
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from convert.core.tensors import Header, Tensors
from convert.formats.arrays import check_shape, dtype_faults, file_size, read_array, read_bytes
from convert.formats.placing import place_arrays
from convert.formats.shards import INDEX_SUFFIX, open_shards, write_shards
from training_recipe.files.writing import written_aside
from transformer_spec import Faults, UserError

SHARD_SIZE = 5 * 10**9


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


class SafetensorsFile(Tensors):
    """One safetensors file, read with positioned reads so that no page of it stays mapped."""

    def __init__(self, path: Path) -> None:
        file_size(path)
        try:
            with safetensors.safe_open(path, "numpy") as file:
                metadata, order = file.metadata(), file.offset_keys()
            (length,) = struct.unpack("<Q", read_bytes(path, 0, 8))
            said = json.loads(read_bytes(path, 8, length))  # what the library has checked
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            message = f"{path} is truncated, damaged or no safetensors file: {error}"
            raise UserError(message) from error
        super().__init__(str(path), _headers(path, said, order), metadata)
        self.path = path
        self.places: dict[str, int] = {}
        end = 8 + length
        for name, header in self.headers.items():  # in the order of the file, which has no gaps
            self.places[name], end = end, end + header.size

    def read(self, name: str) -> np.ndarray:
        return read_array(self.path, self.places[name], self[name])


def _headers(path: Path, said: Mapping[str, Any], order: list[str]) -> dict[str, Header]:
    """What a file says of its arrays, in their order in it."""
    headers: dict[str, Header] = {}
    faults = Faults()
    for name in order:
        try:
            headers[name] = _header(said[name]["dtype"], tuple(said[name]["shape"]))
        except ValueError as error:
            faults.add(f"{name!r}: {error}", "cannot be read")
    faults.raise_if_any(f"cannot read {path}")
    return headers


@functools.lru_cache
def _header(kind: str, shape: tuple[int, ...]) -> Header:
    """A header, made once for the many arrays that are alike; ValueError where it cannot be."""
    if kind not in DTYPES:
        raise ValueError(f"it is {kind}; readable: {', '.join(DTYPES)}")
    return Header(check_shape(shape, DTYPES[kind]), DTYPES[kind])


def open_safetensors(path: Path) -> Tensors:
    """The tensors of a .safetensors file, or of the shards that a .index.json lists."""
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        return open_shards(path, SafetensorsFile)
    return SafetensorsFile(path)


def write_safetensors(
    path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None
) -> None:
    """Write one file, few tensors in memory at a time; the same tensors give the same bytes."""
    with written_aside(path) as aside:
        _write_file(aside, tensors, metadata)


def _write_file(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None) -> None:
    header, offsets = header_bytes(tensors, metadata)
    with open(path, "wb") as file:
        file.write(header)
        places = {name: len(header) + offsets[name] for name in tensors}
        place_arrays(file, tensors, places)


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


def write_sharded(
    folder: Path,
    tensors: Tensors,
    metadata: Mapping[str, str] | None = None,
    shard_size: int = SHARD_SIZE,
    stem: str = "model",
) -> list[Path]:
    """``write_shards`` of safetensors; what fits into one shard becomes ``model.safetensors``."""

    def write_one(path: Path, part: Tensors) -> None:
        _write_file(path, part, metadata)

    return write_shards(folder, tensors, shard_size, stem, ".safetensors", write_one)
