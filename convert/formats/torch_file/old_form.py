"""Files of ``torch.save`` from before PyTorch 1.6: five pickles, then each storage after its count.

The pickles are a magic number, the protocol's number, the writing machine, the content, and the
order of the storages.
"""

import struct
from pathlib import Path
from typing import Any, NamedTuple

from convert.formats.torch_file.plain_values import load_plain
from convert.formats.torch_file.tensors import Storage, stored
from convert.formats.torch_file.unpickler import BoundedFile, Named
from transformer_spec import UserError

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
MAGIC = MAGIC_NUMBER.to_bytes(10, "little")
PROTOCOL_VERSION = 1001


class Place(NamedTuple):
    """Where the bytes of one storage lie; no ``crc`` where the file has none for it."""

    start: int
    size: int
    crc: int | None = None


def is_legacy(start: bytes) -> bool:
    """Whether a file that begins with these bytes (32 or more) is of the old form."""
    return MAGIC in start[:32]


def read_legacy(path: Path) -> tuple[Any, dict[str, Place]]:
    """The content, and where each storage lies; no tensor is read."""
    storages: list[Storage] = []

    def refer(pid: Any) -> Any:
        if type(pid) is tuple and len(pid) == 4 and pid[0] == "module" and type(pid[1]) is Named:
            return pid[1]  # a class, with its source beside it
        found = stored(pid)
        storages.append(found.storage)
        return found

    with open(path, "rb") as opened:
        file = BoundedFile(opened, path.stat().st_size)
        magic, version, machine = (load_plain(file, str(path)) for _ in range(3))
        if magic != MAGIC_NUMBER or version != PROTOCOL_VERSION:
            raise UserError(f"{path} is damaged: its magic number or version is wrong")
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise UserError(f"{path} was written on a big-endian machine; re-save it")
        content = load_plain(file, str(path), refer)
        keys = load_plain(file, str(path))
        return content, _places(file, path, keys, _item_sizes(path, storages))


def _item_sizes(path: Path, storages: list[Storage]) -> dict[str, int]:
    """Bytes per number of each storage."""
    sizes: dict[str, int] = {}
    for storage in storages:
        if sizes.setdefault(storage.key, storage.dtype.itemsize) != storage.dtype.itemsize:
            raise UserError(f"{path}: storage {storage.key!r} holds numbers of two sizes")
    return sizes


def _places(file: BoundedFile, path: Path, keys: Any, sizes: dict[str, int]) -> dict[str, Place]:
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


def _count(file: BoundedFile, path: Path, start: int) -> int:
    """The numbers in the storage whose 8-byte count begins at ``start``."""
    if start + 8 > file.size:
        raise UserError(f"{path} is truncated: storages are missing at its end")
    file.seek(start)
    (count,) = struct.unpack("<q", file.read(8))
    if count < 0:
        raise UserError(f"{path} is damaged: a storage has {count} numbers")
    return count
