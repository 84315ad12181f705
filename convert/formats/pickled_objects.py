"""Namespaces and NumPy's numbers in pickles of weights, as plain data."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from convert.formats.arrays import check_shape, shown
from convert.formats.content import Namespace
from convert.formats.pickle_values import PickleError, Unfinished

PLAIN_NUMBERS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16)")


class PendingNamespace(Unfinished):
    """A namespace whose attributes may still come; they are kept as a dict and never set."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.values: dict[str, Any] = {}

    def build(self, state: Any) -> None:
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise PickleError("a namespace has a state that is no dict of names and values")
        self.values |= state

    def parts(self) -> tuple[Callable[[Any], Any], dict[Any, Any]]:
        return lambda pairs: Namespace(self.kind, dict(pairs)), self.values


class PendingDtype(Unfinished):
    """A NumPy type of plain numbers; its state adds the byte order."""

    def __init__(self, text: str) -> None:
        if type(text) is not str or not PLAIN_NUMBERS.fullmatch(text):
            raise PickleError(f"NumPy data of type {shown(text, 40)}; only plain numbers are read")
        self.dtype = np.dtype(text)

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 5 or any(state[2:5]) or any(state[8:]):
            raise PickleError("it has NumPy data of a composed type; only plain numbers are read")
        if state[1] not in ("<", ">", "=", "|"):
            raise PickleError("it has NumPy data of unknown byte order")
        self.dtype = self.dtype.newbyteorder(state[1])

    def parts(self) -> tuple[Callable[[Any], Any], list[Any]]:
        return lambda _: str(self.dtype), []


class PendingArray(Unfinished):
    """A NumPy array whose numbers come with its state."""

    def __init__(self) -> None:
        self.array = np.zeros(0)

    def build(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise PickleError("a NumPy array has a state of unknown form")
        _, shape, dtype, fortran, content = state
        self.array = numpy_array(content, dtype, shape, "F" if fortran else "C")

    def parts(self) -> tuple[Callable[[Any], Any], list[Any]]:
        return lambda _: self.array, []


def numpy_array(content: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(dtype, PendingDtype):
        raise PickleError("a NumPy array has no type of plain numbers")
    content = _as_bytes(content)
    lengths = check_shape(shape, dtype.dtype)
    flat = np.frombuffer(content, dtype.dtype)
    array = flat.reshape(lengths, order="F" if order == "F" else "C")
    return array.astype(dtype.dtype.newbyteorder("="))


def numpy_scalar(dtype: Any, content: Any) -> Any:
    """A NumPy number as a Python one."""
    return numpy_array(content, dtype, (), "C").item()


def _as_bytes(content: Any) -> bytes:
    """Bytes, also as Python 2 wrote them: as a string."""
    if type(content) is str:
        return content.encode()
    if type(content) is not bytes:
        raise PickleError("a NumPy array has no bytes")
    return content


def encode(text: Any, encoding: Any = None) -> bytes:
    """How bytes are written in old pickles: as Latin-1 text."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise PickleError("it encodes something else than Latin-1 text")
    return text.encode("latin-1")
