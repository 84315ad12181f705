"""Named arrays that are described at once and read one at a time."""

import functools
import math
from abc import abstractmethod
from collections.abc import Hashable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NamedTuple

import numpy as np

from training_recipe.arrays import Header as ArrayHeader
from training_recipe.arrays import Parts
from transformer_spec import UserError

TILE = 64
PIECE = 1 << 20


class Header(NamedTuple):
    """What a file says about an array before the array is read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{dtype_name(self.dtype)} {list(self.shape)}"

    def to_json(self) -> dict[str, Any]:
        """The same as plain data, with the size in bytes."""
        return {"dtype": dtype_name(self.dtype), "shape": list(self.shape), "bytes": self.size}


@functools.cache
def dtype_name(dtype: np.dtype) -> str:
    """The name of a number format; NumPy takes a while to say it, and is asked for every array."""
    return str(dtype)


def header_of(array: np.ndarray) -> Header:
    return Header(array.shape, array.dtype)


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array in row order, a copy only where it does not lie that way."""
    if array.flags.c_contiguous:
        return array
    if array.ndim != 2:
        return np.ascontiguousarray(array).reshape(array.shape)
    result = np.empty(array.shape, array.dtype)
    for start in range(0, len(array), TILE):
        _copy_rows(array[start : start + TILE], result[start : start + TILE])
    return result


def _copy_rows(rows: np.ndarray, result: np.ndarray) -> None:
    """Copy some rows of a matrix in tiles: a transposed row misses the cache at every step."""
    for start in range(0, rows.shape[1], TILE):
        result[:, start : start + TILE] = rows[:, start : start + TILE]


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """The bytes of an array in row order, some at a time; a transposed matrix is never whole."""
    if array.ndim == 2 and array.size and not array.flags.c_contiguous:
        step = max(1, PIECE // (array.shape[1] * array.itemsize) // TILE) * TILE
        for start in range(0, len(array), step):
            yield as_bytes(array[start : start + step])
        return
    content = as_bytes(array)
    for start in range(0, content.size, PIECE):
        yield content[start : start + PIECE]


def as_bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of an array in row order; a copy only where they do not lie that way."""
    return contiguous(array).reshape(-1).view(np.uint8)


class Tensors(Mapping[str, Header]):
    """A mapping name -> Header whose arrays are read on demand with ``read(name)``."""

    def __init__(
        self, label: str, headers: dict[str, Header], metadata: dict[str, str] | None = None
    ) -> None:
        self.label = label
        self.headers = headers
        self.metadata = metadata or {}

    def __getitem__(self, name: str) -> Header:
        return self.headers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def __len__(self) -> int:
        return len(self.headers)

    def __contains__(self, name: object) -> bool:
        return name in self.headers

    # A mapping's own views look every name up again, which takes a while for many.
    def keys(self) -> KeysView[str]:
        return self.headers.keys()

    def values(self) -> ValuesView[Header]:
        return self.headers.values()

    def items(self) -> ItemsView[str, Header]:
        return self.headers.items()

    @property
    def size(self) -> int:
        """Bytes of all arrays together."""
        return sum(header.size for header in self.values())

    @abstractmethod
    def read(self, name: str) -> np.ndarray:
        """The array of one name, in memory of its own; a damaged file is a UserError."""

    def place(self, name: str) -> Hashable:
        """Where numbers lie, the same for names of one weight; None where that says nothing."""
        return None

    def prepare(self, name: str) -> None:
        """What the thread that all began in must do before another one reads a name."""

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """The bytes of one array in row order, some at a time.

        ValueError where the array is not what its header announced.
        """
        return pieces(self.read_announced(name))

    def read_announced(self, name: str) -> np.ndarray:
        """The array of a name; ValueError where it is not what its header announced."""
        array = self.read(name)
        if (array.shape, array.dtype) != self[name]:
            found = f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"{name!r} was announced as {self[name]}, read as {found}")
        return array

    def read_all(self) -> dict[str, np.ndarray]:
        return {name: self.read(name) for name in self}


class Held(Tensors):
    """Arrays that are in memory already."""

    def __init__(self, arrays: Mapping[str, np.ndarray], label: str = "weights") -> None:
        super().__init__(label, {name: header_of(array) for name, array in arrays.items()})
        self.arrays = arrays

    def read(self, name: str) -> np.ndarray:
        return self.arrays[name]


class Subset(Tensors):
    """Some of the names of other tensors."""

    def __init__(self, tensors: Tensors, names: list[str]) -> None:
        super().__init__(tensors.label, {name: tensors[name] for name in names}, tensors.metadata)
        self.tensors = tensors

    def place(self, name: str) -> Hashable:
        return self.tensors.place(name)

    def prepare(self, name: str) -> None:
        self.tensors.prepare(name)

    def read(self, name: str) -> np.ndarray:
        return self.tensors.read(name)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        return self.tensors.pieces(name)


class Joined(Tensors):
    """Several files seen as one; a name that two of them hold is a UserError."""

    def __init__(self, label: str, parts: list[Tensors]) -> None:
        owners: dict[str, Tensors] = {}
        for part in parts:
            for name in part:
                if name in owners:
                    raise UserError(f"{name!r} is in {owners[name].label} and in {part.label}")
                owners[name] = part
        super().__init__(label, {name: owner[name] for name, owner in owners.items()})
        self.owners = owners

    def place(self, name: str) -> Hashable:
        return self.owners[name].place(name)

    def read(self, name: str) -> np.ndarray:
        return self.owners[name].read(name)

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        return self.owners[name].pieces(name)


class Renamed(Tensors):
    """Some of other tensors under new names; ``names`` maps each new name to the old one."""

    def __init__(self, tensors: Tensors, names: Mapping[str, str]) -> None:
        headers = {new: tensors[old] for new, old in names.items()}
        super().__init__(tensors.label, headers, tensors.metadata)
        self.tensors = tensors
        self.names = names

    def place(self, name: str) -> Hashable:
        return self.tensors.place(self.names[name])

    def read(self, name: str) -> np.ndarray:
        return self.tensors.read(self.names[name])

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        return self.tensors.pieces(self.names[name])


def as_parts(tensors: Tensors, prefix: str = "") -> Parts:
    """The arrays whose names begin with ``prefix``, without it, each read when it is asked for."""
    chosen = [name for name in tensors if name.startswith(prefix)]
    headers = {name.removeprefix(prefix): ArrayHeader(*tensors[name]) for name in chosen}
    return Parts(headers, lambda name: tensors.read(prefix + name))


class Announced(Tensors):
    """Tensors of which nothing but names, shapes and types is known."""

    def read(self, name: str) -> np.ndarray:
        raise ValueError(f"{name!r} of {self.label} is announced only and has no numbers")
