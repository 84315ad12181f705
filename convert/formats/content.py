"""Files that hold more than tensors: a plain tree, with a description where an array lies."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.tensors import Header, Tensors, header_of
from transformer_spec import Faults, UserError
from transformer_spec.errors import printable_name

MAX_DEPTH = 100
MAX_NAMED = 12
OPTIMIZER = {"state", "param_groups"}  # keys of the state_dict() of an optimizer of torch


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


class Unread:
    """An object of a class that is not made here: the class's name, and what the object is made of.

    ``arguments`` are None where a file speaks of a class or function and makes nothing of it.
    ``state`` is what its attributes were, ``items`` and ``values`` what it held as a dict or list.
    """

    __slots__ = ("arguments", "items", "name", "state", "values")

    def __init__(self, name: str, arguments: tuple[Any, ...] | None = None) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.values: list[Any] = []

    @property
    def attributes(self) -> dict[Any, Any]:
        """What it holds under names: dicts that it was made of, its attributes, its items."""
        pair = type(self.state) is tuple and len(self.state) == 2  # a dict, and that of its slots
        parts = (*(self.arguments or ()), *(self.state if pair else (self.state,)), self.items)
        return {key: value for part in parts if type(part) is dict for key, value in part.items()}

    def __repr__(self) -> str:
        return f"<{self.name}, not read>"


def some_of(names: list[str]) -> str:
    """Names for a message, the first of them where there are many."""
    more = [f"and {len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    return ", ".join([*map(printable_name, names[:MAX_NAMED]), *more])


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

    def place(self, leaf: Leaf) -> Hashable:
        """Where in the file a leaf's numbers lie; None where no two leaves share a place."""
        return None

    def at(self, key: str) -> Any:
        """The part under a key, or under keys joined with dots; a UserError says what there is.

        Keys go through dicts, lists and the attributes of objects. The beginning of flat names,
        which a dot ends, stands for a dict of what follows it.
        """
        found = self.find(self.content, key)
        if found is None:
            raise UserError(f"{self.path} has no key {key!r}; {self.choices()}")
        return found

    def find(self, part: Any, key: str) -> Any:
        """The part of a part under keys joined with dots; None where there is none."""
        inside = self.members(part)
        names = key.split(".")
        for count in range(len(names), 0, -1):
            first, rest = ".".join(names[:count]), ".".join(names[count:])
            found = inside.get(first)
            found = self.find(found, rest) if rest and found is not None else found
            if found is not None:
                return found
        flat = {n.removeprefix(f"{key}."): x for n, x in inside.items() if n.startswith(f"{key}.")}
        return flat or None

    def members(self, part: Any) -> Mapping[str, Any]:
        """What is inside a dict, list or object, each under its key, number or attribute."""
        return {str(key): value for key, value in children(part)}

    def mapping(self, part: Any) -> Mapping[Any, Any] | None:
        """What ``tensors`` would look for arrays in, if a part is a dict or an object like one."""
        if isinstance(part, Unread):
            held = any(map(is_array, part.items.values()))
            return part.items if held else part.attributes or None
        return part if isinstance(part, dict) else None

    def dicts(self) -> dict[str, Mapping[Any, Any]]:
        """Every dict that holds an array, by its keys joined with dots; the top one is ``""``.

        Those inside the state of an optimizer are none of weights, and are not among them.
        """
        return dict(self._dicts(self.content, [], set()))

    def _dicts(
        self, part: Any, keys: list[str], seen: set[int]
    ) -> Iterator[tuple[str, Mapping[Any, Any]]]:
        mapping = self.mapping(part)
        inside = dict(children(part)) if mapping is None else mapping
        if id(part) in seen or len(keys) > MAX_DEPTH or inside.keys() >= OPTIMIZER:
            return
        if isinstance(part, Unread):
            seen.add(id(part))
        if mapping is not None and any(map(is_array, mapping.values())):
            yield ".".join(keys), mapping
        for key, value in inside.items():
            if isinstance(value, (dict, list, tuple, Unread)):
                yield from self._dicts(value, [*keys, str(key)], seen)

    def choices(self) -> str:
        """What ``--key`` could be, in words."""
        named = some_of([key for key in self.dicts() if key])
        if not named and self.mapping(self.content) is None:
            return f"it holds {_what(self.content)}"
        if not named:
            return "it has no dict of tensors"
        return f"choose one of its dicts of tensors with --key: {named}"

    def tensors(self, content: Any = None, nested: bool = False) -> Tensors:
        """The arrays of one dict of ``content`` (its top unless given) under their keys.

        ``nested`` follows dicts and lists inside it and joins the keys with dots. Anything else
        than an array, and a name that comes twice, is a UserError.
        """
        return FileTensors(self, self.content if content is None else content, nested)


def _what(content: Any) -> str:
    """What a file holds that is no dict, list or object with parts."""
    if is_array(content):
        return "one tensor without a name"
    return repr(content) if isinstance(content, Unread) else f"a {type(content).__name__}"


class FileTensors(Tensors):
    """The arrays of one dict of a file."""

    def __init__(self, file: ContentFile, content: Any, nested: bool) -> None:
        mapping = file.mapping(content)
        if mapping is None:
            raise UserError(f"{file.path} holds no dict of tensors; {file.choices()}")
        pairs = list(_flat(mapping, "") if nested else mapping.items())
        others = [str(name) for name, value in pairs if not is_array(value)]
        if others:
            raise UserError(
                f"{file.path} holds more than tensors: {some_of(others)}; {file.choices()}"
            )
        self.file = file
        self.leaves = _named(file.path, pairs)
        headers = {name: _header(leaf) for name, leaf in self.leaves.items()}
        super().__init__(str(file.path), headers)

    def place(self, name: str) -> Hashable:
        leaf = self.leaves[name]
        return None if isinstance(leaf, np.ndarray) else self.file.place(leaf)

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


def children(value: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of a dict, list or object with their keys; of anything else none."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)
    elif isinstance(value, Unread):
        yield from value.attributes.items()
        yield from enumerate(value.values)


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, part in children(value):
        if isinstance(part, (dict, list, tuple)):
            yield from _flat(part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", part


def leaves(value: Any) -> Iterator[tuple[str, Leaf]]:
    """Every array of a tree that is not read yet, under its keys joined with dots.

    Objects, which may contain each other, are gone through once; keys inside them come after the
    name of their class.
    """
    for name, part in _walk(value):
        if isinstance(part, Leaf):
            yield name, part


def unread(value: Any) -> Iterator[Unread]:
    """Every object of a tree that was not read, once; not what lies inside such objects."""
    seen = set[int]()
    for _, part in _walk(value, inside=False):
        if isinstance(part, Unread) and id(part) not in seen:
            seen.add(id(part))
            yield part


def _walk(value: Any, inside: bool = True) -> Iterator[tuple[str, Any]]:
    """Every part of a tree with its name; ``inside`` objects as well."""
    waiting, seen = [("", value)], set[int]()
    while waiting:
        name, part = waiting.pop()
        yield name, part
        if isinstance(part, Unread):
            if not inside or id(part) in seen:
                continue
            seen.add(id(part))
            name = part.name
            inner = [("state", part.state), *part.items.items(), *enumerate(part.values)]
            everything = [*enumerate(part.arguments or ()), *inner]
        else:
            everything = list(children(part))
        waiting += [(f"{name}.{k}" if name else str(k), x) for k, x in reversed(everything)]


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
