"""The container of ``numpy.savez``: a zip file with one .npy file per array, packed or not.

Pickled Python objects inside are never read. A .npy file knows NumPy's own types alone: bfloat16
and float8 would come back as nameless bytes, so they are refused both ways.
"""

import ast
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert.core.tensors import Header, Tensors
from convert.formats.arrays import check_shape, dtype_faults, file_size, shown, write_array
from convert.formats.atomic import written_aside
from convert.formats.zip_entries import Entry, beginning, fill_from, read_entries
from transformer_spec import Faults

MAGIC = b"\x93NUMPY"
MAX_HEADER = 10_000
PLAIN_NUMBERS = re.compile(r"[<>|]?(b1|[iu][1248]|f[248]|c8|c16)")
PLAIN_KINDS = "biufc"


class Member(NamedTuple):
    """One array of an archive, its numbers from ``start`` of the entry to its end."""

    entry: Entry
    start: int
    header: Header
    stored_dtype: np.dtype
    fortran: bool


class NpzFile(Tensors):
    """One .npz file; numbers in the other byte order come out in this machine's."""

    def __init__(self, path: Path) -> None:
        file_size(path)
        self.path = path
        self.members: dict[str, Member] = {}
        faults = Faults()
        for name, entry in read_entries(path, ".npz file").items():
            try:
                self.members[_array_name(name)] = _member(path, entry)
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                faults.add(f"{name!r}: {error}")
        faults.raise_if_any(f"cannot read {path}")
        super().__init__(str(path), {name: m.header for name, m in self.members.items()})

    def read(self, name: str) -> np.ndarray:
        member = self.members[name]
        flat = np.empty(member.header.size // member.stored_dtype.itemsize, member.stored_dtype)
        fill_from(self.path, member.entry, member.start, flat)
        array = flat.reshape(member.header.shape, order="F" if member.fortran else "C")
        return np.ascontiguousarray(array, member.header.dtype).reshape(member.header.shape)


def open_npz(path: Path) -> Tensors:
    """The arrays of a .npz file, each read when asked for."""
    return NpzFile(Path(path))


def _array_name(entry: str) -> str:
    if not entry.endswith(".npy"):
        raise ValueError("it is no .npy file")
    return entry.removesuffix(".npy")


def _member(path: Path, entry: Entry) -> Member:
    """What a .npy file says of itself, checked against its size before anything is read."""
    start = beginning(path, entry, MAX_HEADER + 12)
    if start[:6] != MAGIC or start[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise ValueError("it does not begin as a .npy file of version 1, 2 or 3 does")
    wide = start[6] > 1
    (length,) = struct.unpack_from("<I" if wide else "<H", start.ljust(12), 8)
    begin = 12 if wide else 10
    text = start[begin : begin + length]
    if len(text) != length:
        raise ValueError(f"its header should have {length} bytes; at most {MAX_HEADER} are read")
    dtype, fortran, shape = _parsed(text.decode("utf-8" if start[6] == 3 else "latin-1"))
    header = Header(check_shape(shape, dtype), dtype.newbyteorder("="))
    if begin + length + header.size != entry.size:
        raise ValueError(
            f"{header} needs {header.size} bytes; it has {entry.size - begin - length}"
        )
    return Member(entry, begin + length, header, dtype, fortran)


def _parsed(text: str) -> tuple[np.dtype, bool, Any]:
    """The header's dict; Python 2 wrote lengths as 10L."""
    content = ast.literal_eval(re.sub(r"(\d)L\b", r"\1", text).strip())
    if not isinstance(content, dict) or content.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header does not say descr, fortran_order and shape")
    dtype, fortran = content["descr"], content["fortran_order"]
    if not isinstance(dtype, str) or not PLAIN_NUMBERS.fullmatch(dtype):
        raise ValueError(
            f"its type is {shown(dtype)}; only plain numbers are read, no Python objects, text, "
            "records or nameless bytes"
        )
    if type(fortran) is not bool:
        raise ValueError(f"its fortran_order is {shown(fortran)}")
    return np.dtype(dtype), fortran, content["shape"]


def _is_plain(dtype: np.dtype) -> bool:
    return dtype.kind in PLAIN_KINDS and dtype.isbuiltin == 1


def write_npz(path: Path, tensors: Tensors) -> None:
    """Write a file that numpy.load reads, not packed; one array at a time is in memory."""
    faults = dtype_faults(tensors, _is_plain, "NumPy's own numbers")
    faults.raise_if_any("a .npz file cannot hold every array")
    with (
        written_aside(path) as aside,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        for name in tensors:
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, _npy_header(tensors[name]))
                write_array(file, tensors, name)


def _npy_header(header: Header) -> dict[str, Any]:
    descr = np.lib.format.dtype_to_descr(header.dtype)
    return {"descr": descr, "fortran_order": False, "shape": header.shape}
