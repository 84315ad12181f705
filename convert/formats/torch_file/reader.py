"""The container of ``torch.save``: a zip file with a pickle and one entry per storage.

The form from before PyTorch 1.6 is read as well. Neither reading nor writing needs torch.
"""

import io
import zipfile
import zlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.tensors import Tensors, as_bytes
from convert.formats.arrays import crc_of_file, file_size, read_bytes
from convert.formats.content import ContentFile, Leaf, leaves
from convert.formats.shards import INDEX_SUFFIX, open_shards
from convert.formats.torch_file.modules import is_module, parameters_of, parts_of
from convert.formats.torch_file.old_form import Place, is_legacy, read_legacy
from convert.formats.torch_file.plain_values import load_plain
from convert.formats.torch_file.strided import is_dense, last_element, read_strided
from convert.formats.torch_file.tensors import StoredTensor
from convert.formats.torch_file.unpickler import BoundedFile
from convert.formats.zip_entries import Entry, damaged, open_archive, read_entries
from transformer_spec import Faults, UserError

REPEATED = 4
SMALL = 1 << 20
PICKLES = tuple(bytes((0x80, version)) for version in (2, 3, 4, 5))  # how one of each begins


class TorchFile(ContentFile):
    """One file of ``torch.save``: its plain content, each tensor read when asked for.

    ``content`` has dicts, lists, tuples, numbers, strings and namespaces as they were saved, a
    StoredTensor where a tensor is, and an Unread where another object is. A file of ``pickle.dump``
    is read as well, arrays of NumPy in it.
    """

    def __init__(self, path: Path) -> None:
        size = file_size(path)
        start = read_bytes(path, 0, min(size, 32))
        if is_legacy(start):
            content, self.places = read_legacy(path)
        elif start.startswith(PICKLES):
            content, self.places = _read_pickle(path, size), {}
        else:
            content, self.places = _read_zip(path)
        super().__init__(path, content)
        self.checked: set[str] = set()
        self._check_tensors(max(REPEATED * size, SMALL))

    def _check_tensors(self, limit: int) -> None:
        """Every tensor lies inside its storage and every storage inside the file."""
        faults = Faults()
        for name, tensor in leaves(self.content):
            if isinstance(tensor, StoredTensor):
                fault = _fault(tensor, self.places.get(tensor.storage.key), limit)
                faults.require(not fault, f"{name!r} {fault}")
        faults.raise_if_any(f"cannot read {self.path}")

    def members(self, part: Any) -> Mapping[str, Any]:
        return parts_of(part) if is_module(part) else super().members(part)

    def mapping(self, part: Any) -> Mapping[Any, Any] | None:
        return parameters_of(part) if is_module(part) else super().mapping(part)

    def read(self, leaf: Leaf) -> np.ndarray:
        if not isinstance(leaf, StoredTensor):
            raise TypeError(f"{leaf} is no tensor of {self.path}")
        key, place = leaf.storage.key, self.places[leaf.storage.key]
        whole = is_dense(leaf.shape, leaf.strides) and leaf.header.size == place.size
        if not whole and key not in self.checked:
            self._check_crc(key, crc_of_file(self.path, place.start, place.size))
        start = place.start + leaf.storage.start + leaf.offset * leaf.dtype.itemsize
        array = read_strided(self.path, start, leaf.header, leaf.strides)
        if whole and key not in self.checked:
            self._check_crc(key, zlib.crc32(as_bytes(array).data))
        return array

    def place(self, leaf: Leaf) -> Hashable:
        if not isinstance(leaf, StoredTensor):
            return None
        return self.path, leaf.storage.key, leaf.offset, leaf.shape, leaf.strides

    def _check_crc(self, key: str, found: int) -> None:
        """Each storage once; what is not checked when its tensor is read was checked before."""
        if self.places[key].crc not in (None, found):
            raise damaged(self.path, f"data/{key}")
        self.checked.add(key)


def _fault(tensor: StoredTensor, place: Place | None, limit: int) -> str:
    """What is wrong with a tensor's place in the file, or nothing."""
    storage = tensor.storage
    size = storage.start + storage.count * storage.dtype.itemsize
    if place is None or place.size < size:
        return "is missing or cut off: its numbers are not in the file"
    if tensor.offset + last_element(tensor.shape, tensor.strides) >= storage.count > 0:
        return f"reaches beyond its storage of {storage.count}"
    if storage.count == 0 and 0 not in tensor.shape:
        return "reaches beyond its storage, which is empty"
    if tensor.header.size > limit:
        return f"needs {tensor.header.size} bytes, repeated from a file far smaller than that"
    return ""


def _read_pickle(path: Path, size: int) -> Any:
    """The content of a file that is one pickle, without storages beside it."""
    with open(path, "rb") as file:
        return load_plain(BoundedFile(file, size), str(path))


def _read_zip(path: Path) -> tuple[Any, dict[str, Place]]:
    """The content, and where each storage lies; no tensor is read."""
    with open_archive(path, "file of torch.save") as archive:
        entries = _entries(path, archive)
    if "byteorder" in entries and _content(path, entries["byteorder"]) != b"little":
        raise UserError(f"{path} was written on a big-endian machine; re-save it")
    program = _content(path, entries["data.pkl"])
    content = load_plain(BoundedFile(io.BytesIO(program), len(program)), str(path))
    places = {
        name.removeprefix("data/"): Place(entry.start, entry.size, entry.crc)
        for name, entry in entries.items()
        if name.startswith("data/")
    }
    return content, places


def _content(path: Path, entry: Entry) -> bytes:
    """The bytes of a small entry; they are checked where it has a checksum."""
    content = read_bytes(path, entry.start, entry.size)
    if entry.crc not in (None, zlib.crc32(content)):
        raise damaged(path, entry.name)
    return content


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, Entry]:
    """Entry name without the archive's own folder -> entry; torch never compresses one.

    A CRC-32 of 0 means that torch was told to write none.
    """
    entries: dict[str, Entry] = {}
    found = read_entries(path, archive)
    if any(name.endswith("/constants.pkl") for name in found):
        raise UserError(
            f"{path} is a TorchScript program, not a file of weights; save those in it: "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'model.pt')"
        )
    for name, entry in found.items():
        short = name.partition("/")[2]
        if entry.deflated:
            raise UserError(f"{path}: {name!r} is compressed, which torch.save never does")
        if short in entries:
            raise UserError(f"{path} is damaged: it has {short!r} in two folders")
        entries[short] = entry._replace(crc=entry.crc or None)
    if "data.pkl" not in entries:
        raise UserError(f"{path} is a zip file without data.pkl: not written by torch.save")
    return entries


def open_torch_file(path: Path) -> TorchFile:
    """A .pt, .pth or .bin file with all that is in it; see ``TorchFile.tensors``."""
    return TorchFile(Path(path))


def open_torch_pickle(path: Path, key: str | None = None) -> Tensors:
    """The tensors of a .pt, .pth or .bin file, or of the shards that a .index.json lists.

    ``key`` picks one dict of a nested checkpoint: its key, or keys joined with dots.
    """
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        return open_shards(path, lambda shard: open_torch_pickle(shard, key))
    file = TorchFile(path)
    return file.tensors(file.content if key is None else file.at(key))
