"""Files of ``torch.save`` from before PyTorch 1.6: five pickles, then each storage after its count.

The pickles are a magic number, the protocol's number, the writing machine, the content, and the
order of the storages.
"""

import struct
from pathlib import Path
from typing import IO, Any, NamedTuple

from convert.formats.pickled_tensors import Storage
from convert.formats.restricted_pickle import load_restricted
from transformer_spec import UserError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
MAGIC = MAGIC_NUMBER.to_bytes(10, "little")
PROTOCOL_VERSION = 1001


class Place(NamedTuple):
    """Where the bytes of one storage lie; no ``crc`` where the file has none for it."""

    start: int
    size: int
    crc: int | None = None


class _Bounded:
    """A file that never promises more bytes than it has left, however many are asked for."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file = file
        self.size = size
        self.at = 0

    def read(self, size: int) -> bytes:
        return self._advance(self.file.read(min(size, self.size - self.at)))

    def readline(self) -> bytes:
        return self._advance(self.file.readline(self.size - self.at))

    def tell(self) -> int:
        return self.at

    def seek(self, at: int) -> None:
        self.at = self.file.seek(at)

    def _advance(self, content: bytes) -> bytes:
        self.at += len(content)
        return content


def is_legacy(start: bytes) -> bool:
    """Whether a file that begins with these bytes (32 or more) is of the old form."""
    return MAGIC in start[:32]


def read_legacy(path: Path) -> tuple[Any, dict[str, Place]]:
    """The content, and where each storage lies; no tensor is read."""
    storages: list[Storage] = []
    with open(path, "rb") as opened:
        file: Any = _Bounded(opened, path.stat().st_size)
        magic, version, machine = (load_restricted(file, str(path)) for _ in range(3))
        if magic != MAGIC_NUMBER or version != PROTOCOL_VERSION:
            raise UserError(f"{path} is damaged: its magic number or version is wrong")
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise UserError(f"{path} was written on a big-endian machine; re-save it")
        content = load_restricted(file, str(path), storages)
        keys = load_restricted(file, str(path))
        return content, _places(file, path, keys, _item_sizes(path, storages))


def _item_sizes(path: Path, storages: list[Storage]) -> dict[str, int]:
    """Bytes per number of each storage."""
    sizes: dict[str, int] = {}
    for storage in storages:
        if sizes.setdefault(storage.key, storage.dtype.itemsize) != storage.dtype.itemsize:
            raise UserError(f"{path}: storage {storage.key!r} holds numbers of two sizes")
    return sizes


def _places(file: _Bounded, path: Path, keys: Any, sizes: dict[str, int]) -> dict[str, Place]:
    if not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise UserError(f"{path} is damaged: it has no list of storages")
    places: dict[str, Place] = {}
    start = file.tell()
    for key in keys:
        if key in places or key not in sizes:
            raise UserError(f"{path} is damaged: storage {key!r} comes twice or belongs to nothing")
        count = _count(file, path, start)
        places[key] = Place(start + 8, count * sizes[key])
        start += 8 + places[key].size
    if start != file.size:
        word = "truncated" if start > file.size else "damaged"
        raise UserError(f"{path} is {word}: its storages end at byte {start}, it has {file.size}")
    return places


def _count(file: _Bounded, path: Path, start: int) -> int:
    """The numbers in the storage whose 8-byte count begins at ``start``."""
    if start + 8 > file.size:
        raise UserError(f"{path} is truncated: storages are missing at its end")
    file.seek(start)
    (count,) = struct.unpack("<q", file.read(8))
    if count < 0:
        raise UserError(f"{path} is damaged: a storage has {count} numbers")
    return count
