"""The container of ``flax.serialization.to_bytes``: nested dicts of arrays in MessagePack.

Neither reading nor writing needs flax. A file is the same, byte for byte, as the one that flax
writes for the same nested dict. Flax stores an array as extension type 1 around (shape, name of the
dtype, bytes), a NumPy number as type 3 around the same, and an array above 1 GiB as a dict of flat
pieces. msgpack reads and writes all but the heads of these, since it would take a whole array into
memory with them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import msgpack
import numpy as np

from convert.core.tensors import Header, Tensors, as_bytes
from convert.formats.arrays import check_lengths, check_shape, dtype_faults, file_size, fill, shown
from convert.formats.content import MAX_DEPTH, ContentFile, Leaf, Placed, nest
from convert.formats.placing import place_arrays
from convert.formats.shards import INDEX_SUFFIX, open_shards, write_shards
from training_recipe.files.writing import written_aside
from transformer_spec import UserError

ARRAY, COMPLEX, NUMBER = 1, 2, 3
SUFFIX = ".msgpack"
CHUNKED = "__msgpack_chunked_array__"
CHUNK_SIZE = 2**30
COUNTS = ("count", "step")
MAX_VALUES = 10_000_000
READ_SIZE = 4096
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
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# Codes of MessagePack: for lengths of 1, 2 and 4 bytes, or with the length in the code.
BINARY, EXTENSION = (0xC4, 0xC5, 0xC6), (0xC7, 0xC8, 0xC9)
FIXED_EXTENSION = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
LIST = {*range(0x90, 0xA0), 0xDC, 0xDD}
MAP = {*range(0x80, 0x90), 0xDE, 0xDF}


class ScanError(Exception):
    """What is wrong with a file."""


@dataclass(frozen=True, slots=True)
class StoredArray(Leaf):
    """An array whose bytes lie in one or more runs, each (first byte, bytes), in row order."""

    runs: tuple[tuple[int, int], ...]


class MsgpackFile(ContentFile):
    """One MessagePack file; ``content`` is its tree with a StoredArray where an array is."""

    def __init__(self, path: Path) -> None:
        size = file_size(path)
        try:
            with open(path, "rb", buffering=0) as file, open(path, "rb") as heads:
                content = _Scanner(file, heads, size).whole()
        except msgpack.OutOfData as error:
            raise UserError(f"{path} is truncated or no MessagePack file of Flax") from error
        except (ScanError, OSError, ValueError, TypeError, RecursionError) as error:
            reason = str(error) or repr(error)
            raise UserError(
                f"{path} is damaged or no MessagePack file of Flax: {reason}"
            ) from error
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

    Names are keys joined with dots; ``key`` picks one dict, such as ``params``. An index, too,
    may join them with dots; transformers joins them with slashes.
    """
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        return open_shards(path, lambda shard: open_msgpack(shard, key), with_dots)
    file = MsgpackFile(path)
    return file.tensors(file.content if key is None else file.at(key), nested=True)


def with_dots(name: str) -> str:
    """A name whose keys are joined with slashes, as ``flatten_dict(sep="/")`` of flax gives it."""
    return name.replace("/", ".")


def with_slashes(name: str) -> str:
    """``with_dots`` the other way, for names of modules and leaves that hold no dot themselves."""
    return name.replace(".", "/")


def arrays_of(file: MsgpackFile) -> Tensors:
    """Every array of a file and every step count, which may be a plain number.

    None, text and other plain values are passed over: a loop keeps such beside its weights.
    """
    return file.tensors(_arrays_in(file.content), nested=True)


def _arrays_in(content: Any) -> Any:
    if isinstance(content, list):
        content = {str(number): part for number, part in enumerate(content)}
    if not isinstance(content, dict):
        return content
    found = {}
    for key, part in content.items():
        if type(part) is int and key in COUNTS and abs(part) < 2**63:
            found[key] = np.array(part)
        elif isinstance(part, (dict, list)):
            found[key] = _arrays_in(part)
        elif isinstance(part, StoredArray):
            found[key] = part
    return found


class _Scanner:
    """Goes through a file by msgpack's own unpacker, which starts anew behind every array."""

    def __init__(self, file: BinaryIO, heads: BinaryIO, size: int) -> None:
        self.file = file
        self.heads = heads
        self.size = size
        self.values = 0
        self._go(0)

    def whole(self) -> Any:
        """The tree, a StoredArray for each array."""
        content = self._value(0)
        if self._at() != self.size:
            raise ScanError(f"{self.size - self._at()} bytes follow after its content")
        return content

    def _go(self, at: int) -> None:
        if at > self.size:
            raise ScanError(f"it is truncated: it should have {at} bytes, it has {self.size}")
        self.file.seek(at)
        self.start = at
        largest = max(self.size, READ_SIZE)
        self.unpacker = msgpack.Unpacker(
            self.file, read_size=READ_SIZE, max_buffer_size=largest, strict_map_key=False
        )

    def _at(self) -> int:
        return self.start + self.unpacker.tell()

    def _number(self, at: int, width: int) -> int:
        self.heads.seek(at)
        content = self.heads.read(width)
        if len(content) != width:
            raise ScanError("it is truncated")
        return int.from_bytes(content, "big")

    def _value(self, depth: int) -> Any:
        self.values += 1
        if depth > MAX_DEPTH:
            raise ScanError(f"it is nested more than {MAX_DEPTH} deep")
        if self.values > MAX_VALUES:
            raise ScanError(f"it has more than {MAX_VALUES} values besides the bytes of arrays")
        code = self._number(self._at(), 1)
        if code in MAP:
            return self._map(self.unpacker.read_map_header(), depth)
        if code in LIST:
            return [self._value(depth + 1) for _ in range(self.unpacker.read_array_header())]
        if code in EXTENSION or code in FIXED_EXTENSION:
            return self._extension(code, self._at() + 1)
        return self.unpacker.unpack()

    def _map(self, count: int, depth: int) -> Any:
        content: dict[str, Any] = {}
        for _ in range(count):
            key = self._value(depth + 1)
            key = str(key) if type(key) is int else key  # of a list in a state of flax.nnx
            if type(key) is not str or key in content:
                raise ScanError(f"key {shown(key)} comes twice or is no text")
            content[key] = self._value(depth + 1)
        return _unchunked(content) if CHUNKED in content else content

    def _extension(self, code: int, at: int) -> Any:
        """An array or a number; ``at`` is behind the code."""
        count = FIXED_EXTENSION.get(code) or self._length(code, EXTENSION, at)
        at += 0 if code in FIXED_EXTENSION else _width(code, EXTENSION)
        kind, end = self._number(at, 1), at + 1 + count
        if kind not in (ARRAY, COMPLEX, NUMBER):
            raise ScanError(f"it has an extension of type {kind}, which Flax never writes")
        self._go(at + 1)
        value = complex(*_pair(self.unpacker.unpack())) if kind == COMPLEX else self._array()
        if self._at() != end:
            raise ScanError("an array is shorter or longer than announced")
        return value

    def _length(self, code: int, codes: tuple[int, ...], at: int) -> int:
        return self._number(at, _width(code, codes))

    def _array(self) -> StoredArray:
        """(shape, dtype, bytes), the bytes skipped."""
        if self._number(self._at(), 1) != 0x93:
            raise ScanError("an array is not made of shape, type and bytes")
        self.unpacker.read_array_header()
        shape, name = self.unpacker.unpack(), self.unpacker.unpack()
        name = name.decode() if isinstance(name, bytes) else name
        if not isinstance(name, str) or name not in DTYPES:
            raise ScanError(f"an array is of type {shown(name)}; readable: {', '.join(DTYPES)}")
        dtype, at = DTYPES[name], self._at()
        code = self._number(at, 1)
        if code not in BINARY:
            raise ScanError("an array has no bytes")
        count = self._length(code, BINARY, at + 1)
        at += 1 + _width(code, BINARY)
        array = StoredArray(check_shape(shape, dtype), dtype, ((at, count),))
        if array.header.size != count:
            raise ScanError(f"{array.header} needs {array.header.size} bytes, it has {count}")
        self._go(at + count)
        return array


def _width(code: int, codes: tuple[int, ...]) -> int:
    """Bytes of the length behind one of three codes."""
    return 1 << codes.index(code)


def _pair(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or [type(part) for part in value] != [float, float]:
        raise ScanError("a complex number is not made of two numbers")
    return value[0], value[1]


def _unchunked(content: dict[str, Any]) -> StoredArray:
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


def write_msgpack(path: Path, tensors: Tensors, content: Mapping[str, Any] | None = None) -> None:
    """Write a file that flax.serialization.msgpack_restore and from_bytes read.

    ``content`` is the tree to write, ``Placed(name)`` in it where an array belongs; without it the
    names are taken apart at their dots. Few arrays are in memory at a time.
    """
    _check_dtypes(tensors)
    tree = _tree_of(tensors) if content is None else content
    with written_aside(path) as aside:
        _write_file(aside, tensors, tree)


def write_sharded_msgpack(folder: Path, tensors: Tensors, shard_size: int, stem: str) -> list[Path]:
    """``write_shards`` of msgpack; the index joins keys with slashes, as transformers did."""
    _check_dtypes(tensors)

    def write_one(path: Path, part: Tensors) -> None:
        _write_file(path, part, _tree_of(part))

    return write_shards(folder, tensors, shard_size, stem, SUFFIX, write_one, with_slashes)


def _check_dtypes(tensors: Tensors) -> None:
    faults = dtype_faults(tensors, NAMES.__contains__, ", ".join(DTYPES))
    faults.raise_if_any("a .msgpack file cannot hold every array")


def _tree_of(tensors: Tensors) -> Any:
    return _sorted(nest({name: Placed(name) for name in tensors}))


def _write_file(path: Path, tensors: Tensors, tree: Any) -> None:
    with open(path, "wb") as file:
        writer = _Writer(file, tensors)
        writer.write(tree)
        place_arrays(file, tensors, writer.places)


def _sorted(tree: Any) -> Any:
    """Keys in the order in which JAX, and so flax, goes through a dict."""
    if not isinstance(tree, dict):
        return tree
    return {key: _sorted(tree[key]) for key in sorted(tree)}


class _Writer:
    """Writes a tree piece by piece.

    Arrays of at most CHUNK_SIZE bytes are left out; ``places`` says where they belong.
    """

    def __init__(self, file: BinaryIO, tensors: Tensors) -> None:
        self.file = file
        self.tensors = tensors
        self.packer = msgpack.Packer()
        self.places: dict[str, int] = {}

    def write(self, value: Any) -> None:
        """TypeError for what is not plain."""
        if isinstance(value, Placed):
            self._placed(value.name)
        elif isinstance(value, Mapping):
            self.file.write(self.packer.pack_map_header(len(value)))
            for key, part in value.items():
                self.write(key)
                self.write(part)
        elif isinstance(value, (list, tuple)):
            self.file.write(self.packer.pack_array_header(len(value)))
            for part in value:
                self.write(part)
        else:
            self.file.write(self.packer.pack(value))

    def _placed(self, name: str) -> None:
        header = self.tensors[name]
        if header.size <= CHUNK_SIZE:
            self._head_of_array(header.shape, header.dtype)
            self.places[name] = self.file.tell()
            self.file.seek(header.size, os.SEEK_CUR)
        else:
            self._in_chunks(header, as_bytes(self.tensors.read_announced(name)).data)

    def _in_chunks(self, header: Header, content: memoryview) -> None:
        shape = {str(i): length for i, length in enumerate(header.shape)}
        self.file.write(self.packer.pack_map_header(3))
        for part in (CHUNKED, True, "shape", shape, "chunks"):
            self.write(part)
        step = max(1, CHUNK_SIZE // header.dtype.itemsize) * header.dtype.itemsize
        starts = range(0, header.size, step)
        self.file.write(self.packer.pack_map_header(len(starts)))
        for i, start in enumerate(starts):
            part = content[start : start + step]
            self.write(str(i))
            self._head_of_array((len(part) // header.dtype.itemsize,), header.dtype)
            self.file.write(part)

    def _head_of_array(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        size = Header(shape, dtype).size
        parts = map(self.packer.pack, (shape, NAMES[dtype]))
        head = self.packer.pack_array_header(3) + b"".join(parts) + _sized(size, BINARY)
        fixed = {count: bytes([code]) for code, count in FIXED_EXTENSION.items()}
        count = len(head) + size
        self.file.write((fixed.get(count) or _sized(count, EXTENSION)) + bytes([ARRAY]) + head)


def _sized(count: int, codes: tuple[int, ...]) -> bytes:
    """A code and the length that follows it, in the first form that is wide enough."""
    code = next(code for code in codes if count < 256 ** _width(code, codes))
    return bytes([code]) + count.to_bytes(_width(code, codes), "big")
