"""Writing the container of ``torch.save`` without torch, few tensors in memory at a time.

The archive has torch's own entries, and each entry's bytes begin at a multiple of 64, so that
``torch.load(..., mmap=True)`` can use them in place.
"""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convert.core.tensors import Subset, Tensors
from convert.formats.arrays import dtype_faults
from convert.formats.content import Placed
from convert.formats.placing import place_arrays
from convert.formats.torch_file.pickler import DTYPE_NAMES, Pickler
from training_recipe.files.writing import written_aside

FOLDER = "archive"
ALIGNMENT = 64


def write_torch_pickle(
    path: Path, tensors: Tensors, content: Mapping[str, Any] | None = None
) -> None:
    """Write a file that torch.load reads, with weights_only as well.

    ``content`` is the tree to write, ``Placed(name)`` in it where a tensor belongs; without it the
    file holds a dict of all tensors. A tensor in several places is stored once.
    """
    faults = dtype_faults(tensors, DTYPE_NAMES.__contains__, ", ".join(DTYPE_NAMES.values()))
    faults.raise_if_any("a .pt file cannot hold every array")
    pickler = Pickler(tensors)
    plain = {name: Placed(name) for name in tensors}
    program = pickler.program(plain if content is None else dict(content))
    unplaced = [name for name in tensors if name not in pickler.keys]
    if unplaced:
        raise ValueError(f"tensors without a place in the content: {unplaced}")
    small = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
    with written_aside(path) as aside, open(aside, "wb") as file:
        _write_archive(file, small, tensors, pickler.keys)


class _Checked(Subset):
    """Tensors with the CRC-32 of every one that was read."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors, list(tensors))
        self.crcs = dict.fromkeys(tensors, 0)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        for piece in super().pieces(name):
            self.crcs[name] = zlib.crc32(piece.data, self.crcs[name])
            yield piece


def _write_archive(
    file: BinaryIO, small: Mapping[str, bytes], tensors: Tensors, keys: Mapping[str, str]
) -> None:
    """A zip file of stored entries; checksums are known, and headers written, after the tensors."""
    infos, at = {}, 0
    sizes = {name: len(content) for name, content in small.items()}
    sizes |= {f"data/{key}": tensors[name].size for name, key in keys.items()}
    for name, size in sizes.items():
        infos[name], at = _laid_out(name, size, at)
    checked = _Checked(tensors)
    place_arrays(file, checked, {name: _start(infos[f"data/{key}"]) for name, key in keys.items()})
    for name, content in small.items():
        infos[name].CRC = zlib.crc32(content)
        file.seek(_start(infos[name]))
        file.write(content)
    for name, key in keys.items():
        infos[f"data/{key}"].CRC = checked.crcs[name]
    for info in infos.values():
        file.seek(info.header_offset)
        file.write(info.FileHeader())
    file.seek(at)
    with zipfile.ZipFile(file, "w") as archive:
        archive.filelist.extend(infos.values())


def _laid_out(name: str, size: int, at: int) -> tuple[zipfile.ZipInfo, int]:
    """An entry whose header is at ``at``, its bytes at the next multiple of 64, and their end."""
    info = zipfile.ZipInfo(f"{FOLDER}/{name}")
    info.file_size = info.compress_size = size
    info.header_offset, info.CRC = at, 0
    padding = -(_start(info) + 4) % ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    return info, _start(info) + size


def _start(info: zipfile.ZipInfo) -> int:
    """The first byte of an entry's content."""
    return info.header_offset + len(info.FileHeader())
