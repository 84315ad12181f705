"""The container of ``flax.serialization.to_bytes``: nested dicts of arrays in MessagePack.

Reading and writing need neither flax nor msgpack. A file is the same, byte for byte, as the one
that flax writes for the same nested dict.
"""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convert.core.tensors import Header, Tensors, as_bytes
from convert.formats.arrays import dtype_faults, file_size, fill
from convert.formats.atomic import written_aside
from convert.formats.content import ContentFile, Leaf, Placed, nest
from convert.formats.msgpack_scan import ARRAY, CHUNKED, DTYPES, ScanError, StoredArray, scan
from convert.formats.placing import place_arrays
from convert.formats.shards import INDEX_SUFFIX, open_shards
from transformer_spec import UserError

CHUNK_SIZE = 2**30
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class MsgpackFile(ContentFile):
    """One MessagePack file; ``content`` is its tree with a StoredArray where an array is."""

    def __init__(self, path: Path) -> None:
        size = file_size(path)
        try:
            content = scan(path, size)
        except (ScanError, OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged or no MessagePack file of Flax: {error}") from error
        super().__init__(path, content)

    def read(self, leaf: Leaf) -> np.ndarray:
        if not isinstance(leaf, StoredArray):
            raise TypeError(f"{leaf} is no array of {self.path}")
        array = np.empty(leaf.shape, leaf.dtype)
        content, at = array.reshape(-1).view(np.uint8), 0
        for start, count in leaf.runs:
            fill(self.path, start, content[at : at + count])
            at += count
        return array


def open_msgpack_file(path: Path) -> MsgpackFile:
    """A .msgpack file with all that is in it; see ``ContentFile.tensors``."""
    return MsgpackFile(Path(path))


def open_msgpack(path: Path, key: str | None = None) -> Tensors:
    """The arrays of a .msgpack file, or of the shards that a .index.json lists.

    Names are keys joined with dots; ``key`` picks one dict, such as ``params``.
    """
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        return open_shards(path, lambda shard: open_msgpack(shard, key))
    file = MsgpackFile(path)
    return file.tensors(file.content if key is None else file.at(key), nested=True)


def write_msgpack(path: Path, tensors: Tensors, content: Mapping[str, Any] | None = None) -> None:
    """Write a file that flax.serialization.msgpack_restore and from_bytes read.

    ``content`` is the tree to write, ``Placed(name)`` in it where an array belongs; without it the
    names are taken apart at their dots. Few arrays are in memory at a time.
    """
    faults = dtype_faults(tensors, NAMES.__contains__, ", ".join(DTYPES))
    faults.raise_if_any("a .msgpack file cannot hold every array")
    tree = _sorted(nest({name: Placed(name) for name in tensors})) if content is None else content
    with written_aside(path) as aside, open(aside, "wb") as file:
        writer = _Writer(file, tensors)
        writer.write(tree)
        place_arrays(file, tensors, writer.places)


def _sorted(tree: Any) -> Any:
    """Keys in the order in which JAX, and so flax, goes through a dict."""
    if not isinstance(tree, dict):
        return tree
    return {key: _sorted(tree[key]) for key in sorted(tree)}


class _Writer:
    """Writes a tree piece by piece, each length in the shortest form that holds it.

    Arrays of at most CHUNK_SIZE bytes are left out; ``places`` says where they belong.
    """

    def __init__(self, file: BinaryIO, tensors: Tensors) -> None:
        self.file = file
        self.tensors = tensors
        self.places: dict[str, int] = {}

    def write(self, value: Any) -> None:
        """TypeError for what is not plain."""
        if isinstance(value, Placed):
            self._placed(value.name)
        elif isinstance(value, Mapping):
            self.file.write(_map_head(len(value)))
            for key, part in value.items():
                self.write(key)
                self.write(part)
        elif isinstance(value, (list, tuple)):
            self.file.write(_list_head(len(value)))
            for part in value:
                self.write(part)
        else:
            self.file.write(_plain(value))

    def _placed(self, name: str) -> None:
        header = self.tensors[name]
        if header.size <= CHUNK_SIZE:
            self._head_of_array(header.shape, header.dtype)
            self.places[name] = self.file.tell()
            self.file.seek(header.size, os.SEEK_CUR)
        else:
            self._in_chunks(header, as_bytes(self.tensors.read_announced(name)).data)

    def _in_chunks(self, header: Header, content: memoryview) -> None:
        self.file.write(_map_head(3) + _plain(CHUNKED) + _plain(True) + _plain("shape"))
        self.write({str(i): length for i, length in enumerate(header.shape)})
        step = max(1, CHUNK_SIZE // header.dtype.itemsize) * header.dtype.itemsize
        starts = range(0, header.size, step)
        self.file.write(_plain("chunks") + _map_head(len(starts)))
        for i, start in enumerate(starts):
            part = content[start : start + step]
            self.write(str(i))
            self._head_of_array((len(part) // header.dtype.itemsize,), header.dtype)
            self.file.write(part)

    def _head_of_array(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        size = Header(shape, dtype).size
        lengths = b"".join(map(_plain, shape))
        head = b"\x93" + _list_head(len(shape)) + lengths + _plain(NAMES[dtype])
        head += _sized(size, ((0xC4, ">B"), (0xC5, ">H"), (0xC6, ">I")))
        self.file.write(_extension_head(ARRAY, len(head) + size) + head)


def _sized(count: int, forms: tuple[tuple[int, str], ...]) -> bytes:
    """A type's code and a length, in the first form that is wide enough."""
    for code, form in forms:
        if count < 256 ** struct.calcsize(form):
            return bytes([code]) + struct.pack(form, count)
    raise UserError(f"{count} is more than MessagePack can count")


def _list_head(count: int) -> bytes:
    return bytes([0x90 | count]) if count < 16 else _sized(count, ((0xDC, ">H"), (0xDD, ">I")))


def _map_head(count: int) -> bytes:
    return bytes([0x80 | count]) if count < 16 else _sized(count, ((0xDE, ">H"), (0xDF, ">I")))


def _extension_head(kind: int, count: int) -> bytes:
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}
    if count in fixed:
        return bytes([fixed[count], kind])
    return _sized(count, ((0xC7, ">B"), (0xC8, ">H"), (0xC9, ">I"))) + bytes([kind])


def _plain(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode("utf-8")
        short = bytes([0xA0 | len(text)]) if len(text) < 32 else b""
        return (short or _sized(len(text), ((0xD9, ">B"), (0xDA, ">H"), (0xDB, ">I")))) + text
    raise TypeError(f"a .msgpack file cannot hold {type(value).__name__}")


def _integer(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack("b", value)
    unsigned = ((0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q"))
    if value >= 0:
        return _sized(value, unsigned)
    for code, form in ((0xD0, ">b"), (0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q")):
        if value >= -(256 ** struct.calcsize(form)) // 2:
            return bytes([code]) + struct.pack(form, value)
    raise UserError(f"{value} is more than MessagePack can count")
