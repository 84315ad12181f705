"""CTranslate2's model.bin: variables one after the other, then names that stand for others.

Little-endian and packed (its ``model_spec.py``, binary version 6): version, name and revision of
the specification, the variables (name, shape, number format, bytes) and the aliases (name, name of
the variable). Matrices are (out, in). Of a matrix of int8 or int16 there are scales beside it, one
for each row or one for all: its numbers are the whole numbers divided by them.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from convert.core.tensors import Header, Tensors
from convert.formats.arrays import MAX_DIMENSIONS, check_shape, file_size, read_array
from transformer_spec import Faults, UserError

CTRANSLATE2 = "ctranslate2"
MODEL_BIN = "model.bin"
VERSION = 6
SPEECH = "WhisperSpec"
# In the order of CTranslate2's ``DataType``.
DTYPES = tuple(
    map(np.dtype, (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16))
)
WHOLE = (np.dtype(np.int8), np.dtype(np.int16))
LONGEST = 512  # bytes, before which the name of the specification ends
SCALE = "_scale"
# Under which settings say what a file is, its single numbers, and its names that are others'.
SPECIFICATION, REVISION, SCALARS, ALIASES = "specification", "revision", "scalars", "aliases"
FLOAT32 = np.dtype(np.float32)
LOST = {
    "int8": "0.4 % (1/254) of its row's largest",
    "int16": "0.05 % (1/2048) of its tensor's largest",
}


def specification_in(start: bytes) -> str | None:
    """The name of the specification that a file begins with; None where it is no model.bin."""
    if not start[4:5] or not start[6 : 6 + start[4]].endswith(b"Spec\0"):
        return None
    return start[6 : 5 + start[4]].decode("ascii", "replace")


def is_ctranslate2(folder: Path) -> bool:
    """Whether a folder's model.bin is CTranslate2's, whatever its config.json says."""
    path = folder / MODEL_BIN
    try:
        with path.open("rb") as file:
            return specification_in(file.read(LONGEST)) is not None
    except OSError:
        return False


@dataclass(frozen=True)
class Stored:
    """A variable as it lies in the file."""

    start: int
    header: Header


@dataclass
class Contents:
    """What the whole of a file says."""

    specification: str = ""
    revision: int = 0
    variables: dict[str, Stored] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def stored(self, name: str) -> Stored | None:
        """What a name or an alias stands for."""
        return self.variables.get(self.aliases.get(name, name))

    def scale(self, name: str) -> Stored | None:
        """The scales of a name: its own, or those of the variable that it stands for."""
        return self.stored(name + SCALE) or self.stored(self.aliases.get(name, name) + SCALE)

    def is_scale(self, name: str) -> bool:
        """Whether a variable is the scale of another, which may be a single number."""
        stored = self.stored(name.removesuffix(SCALE))
        return name.endswith(SCALE) and stored is not None and stored.header.dtype in WHOLE


class CTranslate2File(Tensors):
    """The tensors of a model.bin by their names and aliases, whole numbers as float32.

    ``scalars`` are the variables that are single numbers, settings of the model; they are no
    tensors here. ``aliases`` maps names to those whose numbers they have.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contents = _contents(path)
        self.aliases: Mapping[str, str] = self.contents.aliases
        self.scalars: dict[str, int | float] = {}
        headers: dict[str, Header] = {}
        faults = Faults()
        for name in (*self.contents.variables, *self.contents.aliases):
            if not self.contents.is_scale(name):
                self._add(name, headers, faults)
        faults.raise_if_any(f"cannot read {path}")
        super().__init__(str(path), headers)

    def _add(self, name: str, headers: dict[str, Header], faults: Faults) -> None:
        stored = self.contents.stored(name)
        assert stored is not None
        shape, dtype = stored.header
        if not shape:
            self.scalars[name] = read_array(self.path, stored.start, stored.header).item()
        elif dtype not in WHOLE:
            headers[name] = stored.header
        else:
            headers[name] = Header(shape, FLOAT32)
            fault = _fault_of_scale(self.contents.scale(name), stored.header)
            faults.require(not fault, f"{name!r}: {fault}")

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What this file and the config.json beside it say of the model.

        Nothing of config.json takes the other's place.
        """
        own = {SPECIFICATION: self.contents.specification, REVISION: self.contents.revision}
        return {**config, **own, SCALARS: self.scalars, ALIASES: dict(self.aliases)}

    @property
    def notes(self) -> list[str]:
        """How exact numbers are that were rounded to whole ones."""
        stored = [self.contents.stored(name) for name in self if name not in self.aliases]
        counted = Counter(str(one.header.dtype) for one in stored if one)
        return [
            f"{counted[kind]} of {len(stored)} tensors are {kind} with scales, read as float32: "
            f"each number is what was once rounded to within {lost}; what rounding lost is lost"
            for kind, lost in LOST.items()
            if counted[kind]
        ]

    def read(self, name: str) -> np.ndarray:
        """The array; of whole numbers, each over its scale, rounded once to float32."""
        stored = self.contents.stored(name)
        assert stored is not None
        array = read_array(self.path, stored.start, stored.header)
        if stored.header.dtype not in WHOLE:
            return array
        found = self.contents.scale(name)
        assert found is not None
        scale = read_array(self.path, found.start, found.header)
        return self._divided(name, array, scale)

    def _divided(self, name: str, array: np.ndarray, scale: np.ndarray) -> np.ndarray:
        numbers = array.astype(np.float32)
        rows = scale.reshape(-1, *(1,) * (array.ndim - 1))  # one row, where one scale is for all
        try:
            if not (np.isfinite(scale).all() and (scale > 0).all()):
                raise FloatingPointError
            with np.errstate(over="raise"):
                numbers /= rows
        except FloatingPointError:
            told = "is not above 0, or too small"
            raise UserError(f"{self.path} is damaged: a scale of {name!r} {told}") from None
        return numbers


def open_ctranslate2(path: Path) -> CTranslate2File:
    """The tensors of a model.bin, each read when asked for."""
    return CTranslate2File(Path(path))


def _fault_of_scale(scale: Stored | None, header: Header) -> str:
    """What is wrong with the scales of a tensor, or nothing."""
    if scale is None:
        return f"it is {header}, and there are no scales of it"
    sizes = (header.shape[0],) if header.dtype == np.int8 else (1, header.shape[0])
    fits = scale.header.dtype == FLOAT32 and math.prod(scale.header.shape) in sizes
    return "" if fits else f"it is {header}, and its scales are {scale.header}"


class _Reader:
    """The parts of a file one after the other; ValueError where it ends before a part does."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.at = file, size, 0

    def bytes(self, count: int) -> bytes:
        self._move(count)
        return self.file.read(count)

    def skip(self, count: int) -> int:
        """Pass over some bytes; where they begin."""
        start = self.at
        self._move(count)
        self.file.seek(self.at)
        return start

    def _move(self, count: int) -> None:
        if self.at + count > self.size:
            short = self.at + count - self.size
            raise ValueError(f"it is truncated, it ends {short} bytes too early")
        self.at += count

    def number(self, kind: str) -> int:
        return struct.unpack("<" + kind, self.bytes(struct.calcsize("<" + kind)))[0]

    def text(self) -> str:
        """A string, whose length counts the zero byte behind it."""
        raw = self.bytes(self.number("H"))
        if not raw.endswith(b"\0"):
            raise ValueError(f"there is no name before byte {self.at}")
        return raw[:-1].decode("utf-8")


def _contents(path: Path) -> Contents:
    """All that a file says of itself; whatever is wrong with it is a UserError."""
    size = file_size(path)
    try:
        with open(path, "rb") as file:
            return _parse(_Reader(file, size))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is no whole model.bin of CTranslate2: {error}") from error


def _parse(reader: _Reader) -> Contents:
    version = reader.number("I")
    if version != VERSION:
        raise ValueError(f"it is of binary version {version}, and {VERSION} is read")
    found = Contents(reader.text(), reader.number("I"))
    for _ in range(reader.number("I")):
        name = _new_name(reader, found)
        try:
            found.variables[name] = _variable(reader)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
    for _ in range(reader.number("I")):
        alias = _new_name(reader, found)
        target = reader.text()
        if target not in found.variables:
            raise ValueError(f"{alias!r} stands for {target!r}, which is not there")
        found.aliases[alias] = target
    if reader.at != reader.size:
        raise ValueError(f"{reader.size - reader.at} bytes are left over at its end")
    return found


def _new_name(reader: _Reader, found: Contents) -> str:
    name = reader.text()
    if name in found.variables or name in found.aliases:
        raise ValueError(f"{name!r} comes twice")
    return name


def _variable(reader: _Reader) -> Stored:
    rank = reader.number("B")
    if rank > MAX_DIMENSIONS:
        raise ValueError(f"it has {rank} axes; at most {MAX_DIMENSIONS}")
    shape = tuple(reader.number("I") for _ in range(rank))
    code, size = reader.number("B"), reader.number("I")
    if code >= len(DTYPES):
        known = ", ".join(f"{number} {dtype}" for number, dtype in enumerate(DTYPES))
        raise ValueError(f"its number format is {code}; known: {known}")
    header = Header(check_shape(shape, DTYPES[code]), DTYPES[code])
    if header.size != size:
        raise ValueError(f"{header} needs {header.size} bytes; it has {size}")
    return Stored(reader.skip(size), header)
