"""What the values of a pickle are while it runs, and the plain data they become at its end."""

from collections.abc import Callable
from typing import Any

import numpy as np

from convert.formats.content import MAX_DEPTH, Leaf

MAX_INTEGER_BITS = 1024
SMALL = (str, bytes, int, float, bool, complex, type(None))
KEY_TYPES = (str, bytes, int, float, bool, type(None))
COST = 32
GROWTH = 64
SMALL_PICKLE = 1 << 20
MAX_KEY_PARTS = 16
REPEATS = "it repeats its parts until there are too many of them"


class PickleError(Exception):
    """What a pickle does that this machine does not."""


class StandIn:
    """What a name in a pickle stands for; ``make`` is ours, or None where it is only named."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.make = make


class Unfinished:
    """Something that a pickle makes first and fills later; becomes plain data at the end."""

    def build(self, state: Any) -> None:
        raise NotImplementedError

    def parts(self) -> tuple[Callable[[Any], Any], dict[Any, Any] | list[Any]]:
        """What makes plain data of its parts, and the parts, not finished yet.

        The maker is called with pairs where the parts are a dict, else with a list.
        """
        raise NotImplementedError


def allowance(size: int) -> int:
    """How much data a pickle of ``size`` bytes may become."""
    return GROWTH * size + SMALL_PICKLE


def copied(value: Any) -> int:
    """Bytes, more or less, of a copy of a value without the values inside it."""
    if isinstance(value, (str, bytes)):
        return len(value)
    return 2 * COST * len(value) if isinstance(value, (tuple, list, dict, set, frozenset)) else 0


def call(function: Any, arguments: Any) -> Any:
    """What a stand-in makes of its arguments."""
    if not isinstance(function, StandIn) or function.make is None:
        raise PickleError(f"it tries to call {describe(function)}")
    if type(arguments) is not tuple:
        raise PickleError(f"it calls {function.name} with {describe(arguments)} for arguments")
    try:
        return function.make(*arguments)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise PickleError(f"it calls {function.name} with wrong arguments: {error}") from error


def checked_key(key: Any) -> Any:
    """A key that is plain and cheap to hash, a flat tuple of such ones included."""
    parts = key if type(key) is tuple and len(key) <= MAX_KEY_PARTS else (key,)
    for part in parts:
        if type(part) not in KEY_TYPES or (type(part) is int and abs(part) >= 2**64):
            raise PickleError(f"a dict or set has the key {describe(key)}")
    return key


def describe(value: Any) -> str:
    """A value in words that never runs anything of it nor grows large."""
    if isinstance(value, StandIn):
        return value.name
    return f"a {type(value).__name__}"


def printable(text: str, limit: int = 200) -> str:
    """A text of the file for a message: on one line, cut short."""
    return text[:limit].encode("unicode_escape").decode()[: 2 * limit]


def bounded(value: Any) -> Any:
    if type(value) is int and value.bit_length() > MAX_INTEGER_BITS:
        raise PickleError(f"it has a number of {value.bit_length()} bits")
    return value


def old_string(text: str) -> str | bytes:
    """A string of Python 2, which did not tell text from bytes; pickletools reads it as Latin-1."""
    content = text.encode("latin-1")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content


class Finisher:
    """Turns the values of a pickle into plain data, parts that are one object only once.

    ``limit`` bounds what is made, and the size of the tree that results, in which a part counts
    wherever it appears: a few lines could otherwise become a tree that nothing can walk through.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.made = 0
        self.done: dict[int, tuple[Any, int, int] | None] = {}

    def finish(self, value: Any) -> Any:
        return self._finish(value, 0)[0]

    def _finish(self, value: Any, depth: int) -> tuple[Any, int, int]:
        """The plain value, what it costs to walk through it, and how deep it is nested."""
        if isinstance(value, SMALL):
            return value, _cost(value), 0
        if isinstance(value, StandIn):
            return value.name, COST + len(value.name), 0
        if isinstance(value, (Leaf, np.ndarray)):
            return value, COST + (value.nbytes if isinstance(value, np.ndarray) else 0), 0
        known = self.done.get(id(value), ())
        if known is None:
            raise PickleError("it holds something that contains itself")
        if not known:
            self.done[id(value)] = None
            known = self.done[id(value)] = self._finish_container(value, depth)
        if depth + known[2] > MAX_DEPTH:
            raise PickleError(f"it is nested more than {MAX_DEPTH} deep")
        return known

    def _finish_container(self, value: Any, depth: int) -> tuple[Any, int, int]:
        if depth > MAX_DEPTH:
            raise PickleError(f"it is nested more than {MAX_DEPTH} deep")
        if type(value) in (set, frozenset):
            return value, COST + sum(map(_cost, value)), 0
        if isinstance(value, Unfinished):
            make, parts = value.parts()
        else:
            make, parts = type(value), value
        keys = list(parts) if isinstance(parts, dict) else []
        values = parts.values() if isinstance(parts, dict) else parts
        self._spend(COST * (1 + len(parts)))
        results = [self._finish(part, depth + 1) for part in values]
        cost = COST + sum(result[1] for result in results) + sum(map(_cost, keys))
        if cost > self.limit:
            raise PickleError(REPEATS)
        plain = [result[0] for result in results]
        made = make(zip(keys, plain, strict=True)) if isinstance(parts, dict) else make(plain)
        return made, cost, 1 + max((result[2] for result in results), default=0)

    def _spend(self, cost: int) -> None:
        self.made += cost
        if self.made > self.limit:
            raise PickleError(REPEATS)


def _cost(value: Any) -> int:
    """What a plain value adds to the tree; long texts count by their length."""
    if isinstance(value, tuple):
        return COST + sum(map(_cost, value))
    return COST + (len(value) if isinstance(value, (str, bytes)) else 0)
