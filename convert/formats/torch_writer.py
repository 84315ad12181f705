"""Writing the container of ``torch.save`` without torch, few tensors in memory at a time.

The archive has torch's own entries in torch's own layout: each entry's bytes begin at a multiple
of 64, so that ``torch.load(..., mmap=True)`` can use them in place.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from convert.core.tensors import Subset, Tensors
from convert.formats.arrays import dtype_faults
from convert.formats.atomic import written_aside
from convert.formats.content import Placed
from convert.formats.pickle_writer import PickleWriter
from convert.formats.pickled_tensors import TORCH_DTYPES
from convert.formats.placing import place_arrays

FOLDER = "archive"
ALIGNMENT = 64
LARGE = IN_LONG_FIELD = 0xFFFFFFFF
UTF8_NAME = 0x800
SIZES_AFTER_DATA = 8
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def write_torch_pickle(
    path: Path, tensors: Tensors, content: Mapping[str, Any] | None = None
) -> None:
    """Write a file that torch.load reads, with weights_only as well.

    ``content`` is the tree to write, ``Placed(name)`` in it where a tensor belongs; without it the
    file holds a dict of all tensors. A tensor in several places is stored once.
    """
    faults = dtype_faults(tensors, DTYPE_NAMES.__contains__, ", ".join(TORCH_DTYPES))
    faults.raise_if_any("a .pt file cannot hold every array")
    writer = PickleWriter({name: (DTYPE_NAMES[h.dtype], h) for name, h in tensors.items()})
    plain = {name: Placed(name) for name in tensors}
    program = writer.program(plain if content is None else content)
    unplaced = [name for name in tensors if name not in writer.keys]
    if unplaced:
        raise ValueError(f"tensors without a place in the content: {unplaced}")
    with written_aside(path) as aside, open(aside, "wb") as file:
        archive = _Archive(file)
        archive.add("data.pkl", program)
        archive.add(".format_version", b"1")
        archive.add(".storage_alignment", str(ALIGNMENT).encode())
        archive.add("byteorder", b"little")
        archive.add_arrays(tensors, {name: f"data/{key}" for name, key in writer.keys.items()})
        archive.add("version", b"3\n")
        archive.add(".data/serialization_id", archive.identity())
        archive.finish()


class _Record(NamedTuple):
    name: bytes
    start: int
    size: int
    crc: int

    @property
    def flags(self) -> int:
        return UTF8_NAME | (SIZES_AFTER_DATA if self.size else 0)

    def long_fields(self) -> bytes:
        """The fields that do not fit into 32 bits, as a zip64 extra field, or nothing."""
        values = [self.size, self.size] if self.size >= LARGE else []
        values += [self.start] if self.start >= LARGE else []
        content = struct.pack(f"<{len(values)}Q", *values)
        return struct.pack("<2H", 1, len(content)) + content if values else b""

    def after(self) -> bytes:
        """What comes after the entry's bytes: the checksum, where there are any."""
        form = "<I2Q" if self.long_fields() else "<3I"
        return (
            b"PK\x07\x08" + struct.pack(form, self.crc, self.size, self.size) if self.size else b""
        )


class _Checked(Subset):
    """Tensors with the CRC-32 of every one that was read."""

    def __init__(self, tensors: Tensors) -> None:
        super().__init__(tensors, list(tensors))
        self.crcs = dict.fromkeys(tensors, 0)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        for piece in super().pieces(name):
            self.crcs[name] = zlib.crc32(piece.data, self.crcs[name])
            yield piece


class _Archive:
    """A zip file of stored entries whose bytes are aligned."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.at = 0
        self.records: list[_Record] = []

    def _write(self, content: bytes) -> None:
        self.file.write(content)
        self.at += len(content)

    def _move(self, at: int) -> None:
        self.file.seek(at)
        self.at = at

    def _begin(self, name: str, size: int, crc: int) -> _Record:
        """All of an entry that comes before its bytes."""
        record = _Record(f"{FOLDER}/{name}".encode(), self.at, size, crc)
        self.records.append(record)
        long = record.long_fields()
        extra = long + self._padding(30 + len(record.name) + len(long))
        lengths = struct.pack("<2H", len(record.name), len(extra))
        self._write(b"PK\x03\x04" + struct.pack("<2H", 0, record.flags) + bytes(18) + lengths)
        self._write(record.name + extra)
        return record

    def add(self, name: str, content: bytes) -> None:
        record = self._begin(name, len(content), zlib.crc32(content))
        self._write(content + record.after())

    def add_arrays(self, tensors: Tensors, names: Mapping[str, str]) -> None:
        """The entry ``names[name]`` for each tensor; checksums are written when all are known."""
        checked, places, number = _Checked(tensors), {}, len(self.records)
        for name, entry in names.items():
            record = self._begin(entry, tensors[name].size, 0)
            places[name] = self.at
            self._move(self.at + record.size + len(record.after()))
        end = self.at
        place_arrays(self.file, checked, places)
        for i, (name, at) in enumerate(places.items(), number):
            self.records[i] = self.records[i]._replace(crc=checked.crcs[name])
            self._move(at + self.records[i].size)
            self._write(self.records[i].after())
        self._move(end)

    def _padding(self, header: int) -> bytes:
        """The extra field ``FB`` that moves the end of a header to a multiple of 64."""
        count = -(self.at + header + 4) % ALIGNMENT
        return b"FB" + struct.pack("<H", count) + b"Z" * count

    def identity(self) -> bytes:
        """40 digits that change with any name or content so far."""
        digest = hashlib.sha256()
        for record in self.records:
            digest.update(record.name + struct.pack("<2Q", record.size, record.crc))
        return b"".join(b"%020d" % number for number in struct.unpack_from("<2Q", digest.digest()))

    def finish(self) -> None:
        """The directory of all entries, always with 64-bit sizes as torch writes it."""
        start = self.at
        for record in self.records:
            self._write(_directory_entry(record))
        size, count = self.at - start, len(self.records)
        long_end = struct.pack("<Q2H2I4Q", 44, 0x031E, 45, 0, 0, count, count, size, start)
        end = self.at
        self._write(b"PK\x06\x06" + long_end)
        self._write(b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1))
        few, *short = min(count, 0xFFFF), min(size, IN_LONG_FIELD), min(start, IN_LONG_FIELD)
        self._write(b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, few, few, *short, 0))


def _directory_entry(record: _Record) -> bytes:
    extra = record.long_fields()
    size = IN_LONG_FIELD if record.size >= LARGE else record.size
    start = IN_LONG_FIELD if record.start >= LARGE else record.start
    sizes = struct.pack("<3I", record.crc, size, size)
    lengths = struct.pack("<2H", len(record.name), len(extra))
    head = b"PK\x01\x02" + struct.pack("<3H", 0, 0, record.flags) + bytes(6)
    return head + sizes + lengths + bytes(10) + struct.pack("<I", start) + record.name + extra
