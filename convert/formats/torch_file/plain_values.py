"""Pickles of weights as plain data, with a description where a tensor is; nothing in them runs."""

import contextlib
from collections.abc import Callable
from typing import Any

from convert.formats.content import MAX_DEPTH, Leaf, Unread
from convert.formats.torch_file.makers import MAKERS
from convert.formats.torch_file.tensors import NAMES, stored
from convert.formats.torch_file.unpickler import (
    KEY_TYPES,
    BoundedFile,
    Made,
    Named,
    PickleError,
    Unpickler,
    printable,
)
from transformer_spec import UserError

MAX_INTEGER_BITS = 1024
SMALL = frozenset((str, bytes, int, float, bool, type(None)))
COST = 32
GROWTH = 64
SMALL_PICKLE = 1 << 20
KNOWN = MAKERS.keys() | NAMES


# What protocols 0 to 2 call in place of a class.
CONSTRUCTORS = (
    "copyreg._reconstructor",
    "copyreg.__newobj__",
    "copyreg.__newobj_ex__",
)


class TooLarge(PickleError):
    """What a pickle describes is out of proportion to it."""


def load_plain(file: BoundedFile, label: str, refer: Callable[[Any], Any] = stored) -> Any:
    """The plain content of a pickle, with an ``Unread`` for each object that is none.

    Reads up to the end of the pickle and not beyond; ``refer`` says what outer references mean.
    What is damaged, or calls a function that runs programs, is a UserError.
    """
    start = file.tell()
    try:
        value = Unpickler(file, KNOWN, refer).load()
        return _Finisher(GROWTH * (file.tell() - start) + SMALL_PICKLE).finish(value)
    except PickleError as error:
        raise UserError(f"{label} is not read: {error}") from error
    except Exception as error:  # a hostile pickle can raise nearly anything
        reason = printable(str(error) or repr(error))
        raise UserError(f"{label} is not read: its pickle is damaged: {reason}") from error


class _Finisher:
    """Turns what an unpickler built into plain data, parts that are one object only once.

    ``limit`` bounds the size of the tree that results, in which a part counts wherever it appears:
    a few lines could otherwise become a tree that nothing can walk through. What is inside objects
    that are not read follows after the rest: they may contain each other, however deep.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0
        self.done: dict[int, tuple[Any, int, int] | None] = {}
        self.waiting: list[tuple[Made, Unread]] = []

    def finish(self, value: Any) -> Any:
        result = self._finish(value, 0)[0]
        while self.waiting:
            self._fill(*self.waiting.pop())
        return result

    def _fill(self, made: Made, unread: Unread) -> None:
        """What is inside an object; a part of it that has no plain form is left out."""
        for place in ("arguments", "state", "items", "values"):
            with contextlib.suppress(NoPlainForm):
                setattr(unread, place, self._inside(getattr(made, place)))

    def _inside(self, value: Any) -> Any:
        try:
            return self._finish(value, 0)[0]
        except TooLarge:
            raise
        except PickleError as error:
            raise NoPlainForm from error

    def _finish(self, value: Any, depth: int) -> tuple[Any, int]:
        """The plain value and how deep it is nested."""
        if type(value) in SMALL:
            self._spend(_cost(value))
            return value, 0
        if isinstance(value, (Leaf, Named)):
            self._spend(COST)
            return _named(value) if isinstance(value, Named) else value, 0
        if depth > MAX_DEPTH:
            raise PickleError(f"it is nested more than {MAX_DEPTH} deep")
        if id(value) not in self.done:
            self.done[id(value)], before = None, self.spent
            try:
                result, height = self._finish_parts(value, depth + 1)
            except PickleError:
                del self.done[id(value)]
                raise
            self.done[id(value)] = result, height, self.spent - before
            return result, height
        known = self.done[id(value)]
        if known is None:
            raise PickleError("it holds something that contains itself")
        result, height, cost = known
        if depth + height > MAX_DEPTH:
            raise PickleError(f"it is nested more than {MAX_DEPTH} deep")
        self._spend(cost)
        return result, height

    def _finish_parts(self, value: Any, depth: int) -> tuple[Any, int]:
        """A container, or the result of a call, made of finished parts."""
        self._spend(COST)
        heights = [0]

        def plain(part: Any) -> Any:
            if type(part) in SMALL:
                self._spend(_cost(part))
                return part
            result, height = self._finish(part, depth)
            heights.append(1 + height)
            return result

        if type(value) is dict:
            self._spend(sum(map(_cost, value)))
            result = {_key(key, plain): plain(part) for key, part in value.items()}
            if len(result) < len(value):
                raise PickleError("a dict has two keys that are one when read")
        elif type(value) is Made:
            result = self._made(value, plain)
        elif isinstance(value, (set, frozenset)):
            result = type(value)(_key(part, plain) for part in value)
        else:
            result = type(value)(map(plain, value))
        return result, max(heights)

    def _made(self, made: Made, plain: Callable[[Any], Any]) -> Any:
        """What a call makes, where its function is known; else an object that is filled later."""
        name, arguments = made.name, made.arguments
        if name in CONSTRUCTORS and arguments and isinstance(arguments[0], Named):
            name, arguments = arguments[0].name, arguments[1:]
            if name in KNOWN:
                arguments = ()  # as protocols 0 and 1 say that an object is new
        if name in KNOWN:
            return _make(name, arguments, made, plain)
        unread = Unread(name, ())
        self.waiting.append((made, unread))
        return unread

    def _spend(self, cost: int) -> None:
        self.spent += cost
        if self.spent > self.limit:
            raise TooLarge("it repeats its parts until there are too many of them")


class NoPlainForm(Exception):
    """Something inside an object that is damaged, or that contains itself."""


def _named(value: Named) -> Any:
    """A name as text where it means a value of its own, such as torch.float32."""
    return value.name if value.name in KNOWN else Unread(value.name)


def _key(key: Any, plain: Callable[[Any], Any]) -> Any:
    """A key that was an object: what it is if that is plain, else the object by itself."""
    if type(key) is tuple:
        return tuple(_key(part, plain) for part in key)
    if type(key) not in (Named, Made):
        return key
    found = plain(key)
    return found if type(found) in (*KEY_TYPES, Unread) else Unread(key.name)


def _make(name: str, arguments: tuple[Any, ...], made: Made, plain: Callable[[Any], Any]) -> Any:
    """What our own function of that name makes of the finished parts of a call."""
    make = MAKERS.get(name)
    if make is None:
        raise PickleError(f"it tries to call {name}")
    parts = {"state": made.state, "items": made.items, "values": made.values}
    given = {key: plain(part) for key, part in parts.items() if part}
    try:
        return make(*map(plain, arguments), **given)
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise PickleError(f"it calls {name} with wrong arguments: {error}") from error


def _cost(value: Any) -> int:
    """What a plain value adds to the tree; long texts count by their length."""
    if type(value) is int and value.bit_length() > MAX_INTEGER_BITS:
        raise PickleError(f"it has a number of {value.bit_length()} bits")
    return COST + (len(value) if isinstance(value, (str, bytes)) else 0)
