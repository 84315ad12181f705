"""The container of ``numpy.savez``: a zip file with one .npy file per array, packed or not.

NumPy reads the headers, and pickled Python objects are never read. A .npy file knows NumPy's own
types alone: bfloat16 and float8 are nameless bytes there, and refused.
"""

import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from convert.core.tensors import Header, Tensors
from convert.formats.arrays import blocks, check_shape, file_size, shown
from convert.formats.zip_entries import Entry, open_archive, read_entries
from transformer_spec import Faults, UserError

PLAIN = {np.dtype(code) for code in "?bhiqBHIQefdFD"}
READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Member(NamedTuple):
    """One array of an archive, its numbers from ``start`` of the entry to its end."""

    start: int
    header: Header
    stored_dtype: np.dtype
    fortran: bool


class NpzFile(Tensors):
    """One .npz file; numbers in the other byte order come out in this machine's."""

    def __init__(self, path: Path) -> None:
        file_size(path)
        self.path = path
        self.archive = open_archive(path, ".npz file")
        self.members: dict[str, Member] = {}
        faults = Faults()
        for name, entry in read_entries(path, self.archive).items():
            try:
                self.members[_array_name(name)] = _member(self.archive, entry)
            except Exception as error:  # NumPy and zipfile raise nearly anything on damaged files
                faults.add(f"{name!r}: {shown(error)}")
        faults.raise_if_any(f"cannot read {path}")
        super().__init__(str(path), {name: m.header for name, m in self.members.items()})

    def read(self, name: str) -> np.ndarray:
        """The array, checked against the entry's CRC-32."""
        member, header = self.members[name], self[name]
        flat = np.empty(header.size // header.dtype.itemsize, member.stored_dtype)
        try:
            with self.archive.open(f"{name}.npy") as file:
                file.read(member.start)
                for block in blocks(flat.view(np.uint8)):
                    block[:] = np.frombuffer(file.read(block.size), np.uint8)
                file.read()
        except Exception as error:
            raise UserError(f"{self.path}: cannot read {name}.npy: {shown(error)}") from error
        array = flat.reshape(header.shape, order="F" if member.fortran else "C")
        return np.ascontiguousarray(array, header.dtype).reshape(header.shape)


def open_npz(path: Path) -> Tensors:
    """The arrays of a .npz file, each read when asked for."""
    return NpzFile(Path(path))


def _array_name(entry: str) -> str:
    if not entry.endswith(".npy"):
        raise ValueError("it is no .npy file")
    return entry.removesuffix(".npy")


def _member(archive: zipfile.ZipFile, entry: Entry) -> Member:
    """What a .npy file says of itself, checked against its size before anything is read."""
    with archive.open(entry.name) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that Python 2 wrote it
        version = npy.read_magic(file)
        if version not in READ_HEADER:
            raise ValueError(f"it is of version {version}, which is for records")
        shape, fortran, dtype = READ_HEADER[version](file)
        start = file.tell()
    header = Header(check_shape(shape, dtype), dtype.newbyteorder("="))
    if header.dtype not in PLAIN:
        raise ValueError(
            f"its type is {shown(dtype)}; only plain numbers are read, no Python objects, text, "
            "records or nameless bytes"
        )
    if header.size != entry.size - start:
        raise ValueError(f"{header} needs {header.size} bytes; it has {entry.size - start}")
    return Member(start, header, dtype, fortran)
