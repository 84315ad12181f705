"""The safetensors container: one file, or shards with an index.

Reading goes through the ``safetensors`` library, which checks the header. Writing is done here,
because the library wants every array in memory at once and writes the metadata's keys in random
order; apart from that order the bytes are the same.
"""

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from convert.formats.atomic import written_aside
from convert.tensors import Header, Joined, Tensors, as_bytes
from transformer_spec import Faults, UserError

INDEX_SUFFIX = ".index.json"

# In the order in which the library ranks them: a file holds the highest first.
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
RANKS = {name: rank for rank, name in enumerate(DTYPES)}


class SafetensorsFile(Tensors):
    """One safetensors file, read with positioned reads so that no page of it stays mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = _open_checked(path)
        headers = {name: self._header(name) for name in self.file.keys()}  # noqa: SIM118
        super().__init__(str(path), headers, self.file.metadata() or {})

    def _header(self, name: str) -> Header:
        part = self.file.get_slice(name)
        if part.get_dtype() not in DTYPES:
            known = ", ".join(DTYPES)
            raise UserError(f"{self.path}: {name!r} is {part.get_dtype()}; readable: {known}")
        return Header(tuple(part.get_shape()), DTYPES[part.get_dtype()])

    def read(self, name: str) -> np.ndarray:
        try:
            return self.file.get_tensor(name)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise UserError(f"{self.path}: cannot read {name!r}: {error}") from error


def _open_checked(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path} does not exist or is no file")
    try:
        return safetensors.safe_open(str(path), framework="np", backend="pread")
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} is truncated or no safetensors file: {error}") from error


def open_safetensors(path: Path) -> Tensors:
    """The tensors of a .safetensors file, or of the shards that a .index.json lists."""
    return _open_shards(path) if path.name.endswith(INDEX_SUFFIX) else SafetensorsFile(path)


def _open_shards(path: Path) -> Tensors:
    """All shards as one; the index and the shards must name the same tensors."""
    weight_map = _read_index(path)
    faults = Faults()
    for shard in sorted(set(weight_map.values())):
        plain = Path(shard).name == shard != ""
        faults.require(plain, f"shard {shard!r} is no plain file name")
    faults.raise_if_any(f"cannot read {path}")
    shards = {shard: SafetensorsFile(path.parent / shard) for shard in set(weight_map.values())}
    for name, shard in weight_map.items():
        faults.require(name in shards[shard], f"{name!r} is not in {shard} as the index says")
    for shard, tensors in sorted(shards.items()):
        for name in tensors:
            listed = weight_map.get(name) == shard
            faults.require(listed, f"{name!r} of {shard} is not in the index")
    faults.raise_if_any(f"cannot read {path}")
    return Joined(str(path), [shards[shard] for shard in sorted(shards)])


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        pairs = {str(name): str(shard) for name, shard in weight_map.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no readable safetensors index: {error!r}") from error
    return pairs


def write_safetensors(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write one file, one tensor in memory at a time; the same tensors give the same bytes."""
    header, offsets = _header_bytes(tensors, metadata)
    with written_aside(path) as aside, open(aside, "wb") as file:
        file.write(header)
        for name in tensors:
            file.seek(len(header) + offsets[name])
            _write_array(file, tensors.read(name), tensors[name], name)
        file.truncate(len(header) + tensors.size)


def _write_array(file: BinaryIO, array: np.ndarray, header: Header, name: str) -> None:
    if (array.shape, array.dtype) != header:
        raise ValueError(f"{name!r} was announced as {header}, read as {array.dtype} {array.shape}")
    file.write(as_bytes(array).data)


def _header_bytes(
    tensors: Tensors, metadata: dict[str, str] | None
) -> tuple[bytes, dict[str, int]]:
    """The length, the JSON header padded to 8 bytes, and where each tensor's bytes begin."""
    for name, header in tensors.items():
        if header.dtype not in NAMES:
            raise UserError(f"safetensors cannot hold {name!r}: {header}")
    ordered = sorted(tensors, key=lambda name: (-RANKS[NAMES[tensors[name].dtype]], name))
    content: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offsets, end = {}, 0
    for name in ordered:
        shape, dtype = tensors[name]
        offsets[name], end = end, end + tensors[name].size
        place = [offsets[name], end]
        content[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": place}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offsets
