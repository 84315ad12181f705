"""Pickles of weights as plain data, with a description where a tensor is; nothing in them runs."""

from collections.abc import Callable
from typing import Any

from convert.formats.content import MAX_DEPTH, Leaf
from convert.formats.torch_file.makers import MAKERS
from convert.formats.torch_file.tensors import NAMES, StoredTensor, stored
from convert.formats.torch_file.unpickler import (
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


def load_plain(file: BoundedFile, label: str, refer: Callable[[Any], StoredTensor] = stored) -> Any:
    """The plain content of a pickle; anything else in it is a UserError that names it.

    Reads up to the end of the pickle and not beyond; ``refer`` says what outer references mean.
    """
    start = file.tell()
    try:
        value = Unpickler(file, MAKERS.keys() | NAMES, refer).load()
        return _Finisher(GROWTH * (file.tell() - start) + SMALL_PICKLE).finish(value)
    except PickleError as error:
        raise UserError(f"{label} is not read: {error}") from error
    except Exception as error:  # a hostile pickle can raise nearly anything
        reason = printable(str(error) or repr(error))
        raise UserError(f"{label} is not read: its pickle is damaged: {reason}") from error


class _Finisher:
    """Turns what an unpickler built into plain data, parts that are one object only once.

    ``limit`` bounds the size of the tree that results, in which a part counts wherever it appears:
    a few lines could otherwise become a tree that nothing can walk through.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0
        self.done: dict[int, tuple[Any, int, int] | None] = {}

    def finish(self, value: Any) -> Any:
        return self._finish(value, 0)[0]

    def _finish(self, value: Any, depth: int) -> tuple[Any, int]:
        """The plain value and how deep it is nested."""
        if type(value) in SMALL:
            self._spend(_cost(value))
            return value, 0
        if isinstance(value, (Leaf, Named)):
            self._spend(COST)
            return value.name if isinstance(value, Named) else value, 0
        if depth > MAX_DEPTH:
            raise PickleError(f"it is nested more than {MAX_DEPTH} deep")
        if id(value) not in self.done:
            self.done[id(value)], before = None, self.spent
            result, height = self._finish_parts(value, depth + 1)
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
            result = {key: plain(part) for key, part in value.items()}
        elif type(value) is Made:
            result = _make(value, plain)
        else:
            result = type(value)(map(plain, value))
        return result, max(heights)

    def _spend(self, cost: int) -> None:
        self.spent += cost
        if self.spent > self.limit:
            raise PickleError("it repeats its parts until there are too many of them")


def _make(made: Made, plain: Callable[[Any], Any]) -> Any:
    """What our own function of that name makes of the finished parts of a call."""
    name, arguments = made.name, made.arguments
    if name.endswith("._reconstructor") and arguments and isinstance(arguments[0], Named):
        name, arguments = arguments[0].name, ()  # as protocols 0 and 1 say that an object is new
    make = MAKERS.get(name)
    if make is None:
        raise PickleError(f"it tries to call {name}")
    parts = {"state": made.state, "items": made.items}
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
