"""Where the files inside a zip archive lie, so that stored ones are read in place."""

import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

from convert.formats.arrays import read_bytes
from transformer_spec import UserError

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
MAX_RATIO = 1100
LONGEST_END = 22 + 20 + 56 + 0xFFFF
ENCRYPTED = 1
METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}


class Entry(NamedTuple):
    """One file of an archive: where its ``size`` bytes begin, unless they are deflated."""

    name: str
    start: int
    size: int
    crc: int | None
    deflated: bool


def open_archive(path: Path, kind: str) -> zipfile.ZipFile:
    """An archive to read from; ``kind`` says in messages what the file should be."""
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises nearly anything on damaged archives
        raise UserError(f"{path} is truncated or no {kind}: {error or repr(error)}") from error


def read_entries(path: Path, archive: zipfile.ZipFile) -> dict[str, Entry]:
    """Every entry by its full name; what the archive claims is checked against the file."""
    infos, size = archive.infolist(), path.stat().st_size
    if not infos:
        raise UserError(f"{path} is empty or damaged: its directory lists nothing")
    if len(infos) != _count(path, size):
        raise UserError(f"{path} is damaged: its directory does not list what it counts")
    entries: dict[str, Entry] = {}
    for info in infos:
        if info.filename in entries:
            raise UserError(f"{path} is damaged: it has two entries {info.filename!r}")
        entries[info.filename] = _entry(path, info, size)
    return entries


def _count(path: Path, size: int) -> int:
    """The number of entries that the end of an archive states; zipfile does not look at it."""
    start = max(0, size - LONGEST_END)
    end = read_bytes(path, start, size - start)
    at = end.rfind(b"PK\x05\x06")
    count = int.from_bytes(end[at + 10 : at + 12], "little")
    long = end.rfind(b"PK\x06\x06", 0, at)
    if count < 0xFFFF or long < 0:
        return count
    return int.from_bytes(end[long + 32 : long + 40], "little")


def _entry(path: Path, info: zipfile.ZipInfo, file_size: int) -> Entry:
    what = f"{path}: entry {info.filename!r}"
    if info.compress_type not in METHODS or info.flag_bits & ENCRYPTED:
        raise UserError(f"{what} is encrypted or compressed in a way that is not read")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    start = _data_start(path, info, file_size)
    fits = 0 <= start <= start + info.compress_size <= file_size
    largest = info.compress_size * (MAX_RATIO if deflated else 1)
    if not fits or info.file_size > largest or not (deflated or info.file_size == largest):
        raise UserError(
            f"{what} is damaged: {info.file_size} bytes from {info.compress_size} packed ones at "
            f"{start}, in a file of {file_size}"
        )
    return Entry(info.filename, start, info.file_size, info.CRC, deflated)


def _data_start(path: Path, info: zipfile.ZipInfo, file_size: int) -> int:
    """The entry's own header repeats its name and says how long the rest of the header is."""
    end = info.header_offset + LOCAL_HEADER.size
    if 0 <= info.header_offset and end <= file_size:
        header = LOCAL_HEADER.unpack(read_bytes(path, info.header_offset, LOCAL_HEADER.size))
        if header[0] == b"PK\x03\x04":
            return end + header[9] + header[10]
    raise UserError(f"{path}: entry {info.filename!r} is damaged: it has no header of its own")


def damaged(path: Path, name: str) -> UserError:
    return UserError(f"{path}: cannot read {name}: bad CRC-32, its bytes have changed")
