"""Files that hold more than tensors: a plain tree, with a description where an array lies."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.tensors import Header, Tensors, header_of
from transformer_spec import Faults, UserError

MAX_DEPTH = 100
MAX_NAMED = 12


@dataclass(frozen=True, slots=True)
class Leaf:
    """An array of a file that is described and not read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def header(self) -> Header:
        return Header(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where in a tree that is to be written the array of a name belongs."""

    name: str


class Namespace(dict[str, Any]):
    """The attributes of an argparse.Namespace or types.SimpleNamespace, as plain data."""

    __slots__ = ("kind",)

    def __init__(self, kind: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.kind = kind


def some_of(names: list[str]) -> str:
    """Names for a message, the first of them where there are many."""
    more = [f"and {len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    return ", ".join(names[:MAX_NAMED] + more)


def is_array(value: Any) -> bool:
    """Whether a part of a tree is an array, read or not."""
    return isinstance(value, (Leaf, np.ndarray))


class ContentFile(ABC):
    """A file with a tree of dicts, lists, plain values and arrays; arrays are read on demand."""

    def __init__(self, path: Path, content: Any) -> None:
        self.path = path
        self.content = content

    @abstractmethod
    def read(self, leaf: Leaf) -> np.ndarray:
        """The array that a leaf of ``content`` describes, in memory of its own."""

    def at(self, key: str) -> Any:
        """The part under a key, or under keys joined with dots; a UserError says what there is."""
        if isinstance(self.content, dict) and key in self.content:
            return self.content[key]
        part = self.content
        for name in key.split("."):
            if not isinstance(part, dict) or name not in part:
                raise UserError(f"{self.path} has no key {key!r}; {self.choices()}")
            part = part[name]
        return part

    def dicts(self) -> dict[str, Mapping[Any, Any]]:
        """Every dict that holds an array, by its keys joined with dots; the top one is ``""``."""
        return dict(_dicts(self.content, ""))

    def choices(self) -> str:
        """What ``--key`` could be, in words."""
        if not isinstance(self.content, dict):
            return f"it holds a {type(self.content).__name__}"
        named = some_of([key for key in self.dicts() if key])
        return f"choose one of its dicts of tensors with --key: {named or 'it has none'}"

    def tensors(self, content: Any = None, nested: bool = False) -> Tensors:
        """The arrays of one dict of ``content`` (its top unless given) under their keys.

        ``nested`` follows dicts and lists inside it and joins the keys with dots. Anything else
        than an array, and a name that comes twice, is a UserError.
        """
        return FileTensors(self, self.content if content is None else content, nested)


class FileTensors(Tensors):
    """The arrays of one dict of a file."""

    def __init__(self, file: ContentFile, content: Any, nested: bool) -> None:
        if not isinstance(content, dict):
            raise UserError(f"{file.path} holds no dict of tensors; {file.choices()}")
        pairs = list(_flat(content, "") if nested else content.items())
        others = [str(name) for name, value in pairs if not is_array(value)]
        if others:
            raise UserError(
                f"{file.path} holds more than tensors: {some_of(others)}; {file.choices()}"
            )
        self.file = file
        self.leaves = _named(file.path, pairs)
        headers = {name: _header(leaf) for name, leaf in self.leaves.items()}
        super().__init__(str(file.path), headers)

    def read(self, name: str) -> np.ndarray:
        leaf = self.leaves[name]
        return np.array(leaf) if isinstance(leaf, np.ndarray) else self.file.read(leaf)


def _header(leaf: Leaf | np.ndarray) -> Header:
    return header_of(leaf) if isinstance(leaf, np.ndarray) else leaf.header


def _named(path: Path, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """The pairs as a dict; 1 and "1", or "a.b" and a: {b}, would be one name."""
    named, faults = {}, Faults()
    for name, value in pairs:
        faults.require(str(name) not in named, f"{str(name)!r} comes twice")
        named[str(name)] = value
    faults.raise_if_any(f"cannot read {path}")
    return named


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, part in _children(value):
        if isinstance(part, (dict, list, tuple)):
            yield from _flat(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part


def _dicts(value: Any, prefix: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    if not isinstance(value, dict):
        return
    if any(is_array(part) for part in value.values()):
        yield prefix, value
    for key, part in value.items():
        yield from _dicts(part, f"{prefix}.{key}" if prefix else str(key))


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Leaf]]:
    """Every array of a tree that is not read yet, under its keys joined with dots."""
    if isinstance(value, Leaf):
        yield name, value
    for key, part in _children(value):
        yield from leaves(part, f"{name}.{key}" if name else str(key))


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested dicts; a name that is also the beginning of another is a UserError."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *path, leaf = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise UserError(f"{name!r} goes through {key!r}, which is an array itself")
        if leaf in node:
            raise UserError(f"{name!r} is also the beginning of another name")
        node[leaf] = value
    return tree
