"""Python's own unpickler with nothing in it that could run: a call becomes a note of that call.

It is the unpickler written in Python. The one in C lets nobody look at what becomes a key, and so
hashes tuples that are nested without end, or shared so often that hashing them never ends; it also
takes memory for any number that a part is filed under.
"""

import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Collection, Mapping
from typing import IO, Any, NoReturn

from convert.formats.content import Unread
from convert.formats.torch_file.dangers import danger_of

MAX_OPERATIONS = 10_000_000
LARGE = 1 << 16
MAX_KEY_PARTS = 16
LONGEST_NAME = 100
KEY_TYPES = (str, bytes, int, float, bool, type(None))
STANDARD: Mapping[int, Callable[[Any], None]] = pickle._Unpickler.dispatch
# What other code of the process has registered, and buffers beside the file.
FORBIDDEN = pickle.EXT1 + pickle.EXT2 + pickle.EXT4 + pickle.NEXT_BUFFER + pickle.READONLY_BUFFER
NAMES = {ord(operation.code): operation.name for operation in pickletools.opcodes}


class PickleError(Exception):
    """What a pickle does that is not read."""


class Named:
    """What a name in a pickle stands for: the name, and nothing behind it."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Made:
    """What a call in a pickle would have made: the call, and what was put into the result after.

    What the call of a call's result would have made has that result as its first argument.
    """

    __slots__ = ("arguments", "items", "name", "state", "values")

    def __init__(self, function: Any, arguments: Any) -> None:
        if type(function) not in (Named, Made):
            raise PickleError(f"it tries to call {describe(function)}")
        self.name = called(function)
        if type(arguments) is not tuple:
            raise PickleError(f"it calls {self.name} with {describe(arguments)} for arguments")
        if danger := danger_of(self.name):
            raise PickleError(f"it calls {self.name}, {danger}")
        self.arguments = arguments if type(function) is Named else (function, *arguments)
        self.state: Any = None
        self.items: dict[Any, Any] = {}
        self.values: list[Any] = []


def called(function: Any) -> str:
    """The name of what a call would run, also where the pickle looks an attribute up for it."""
    if type(function) is Named:
        return function.name
    name, arguments = function.name, function.arguments
    if name.endswith(".getattr") and len(arguments) > 1 and type(arguments[1]) is str:
        owner = called(arguments[0]) if type(arguments[0]) in (Named, Made) else "an object"
        return printable(f"{owner}.{arguments[1][:LONGEST_NAME]}", LONGEST_NAME)
    if name.endswith(".partial") and arguments and type(arguments[0]) in (Named, Made):
        return called(arguments[0]).removesuffix(".__new__")
    return printable(f"{name}()", LONGEST_NAME)


class BoundedFile:
    """A file that never promises more bytes than it has left, however many are asked for."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file = file
        self.size = size
        self.readline = file.readline
        self.seek = file.seek
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        if count > LARGE and count > self.size - self.tell():
            raise PickleError(f"it is truncated: {count} bytes are announced and not there")
        content = self.file.read(count)
        if len(content) < count:
            raise PickleError("it is truncated")
        return content


class _Operations(dict[int, Callable[[Any], None]]):
    """What is done for each operation; those that are not in it end the reading."""

    def __missing__(self, code: int) -> NoReturn:
        name = NAMES.get(code, hex(code))
        raise PickleError(f"it uses the operation {name}, which no weight file needs")


class Unpickler(pickle._Unpickler):
    """Builds lists, tuples, dicts, sets and plain values, ``Named`` and ``Made`` for all else.

    ``names`` are those that are known by heart; ``refer`` says what outer references mean. What is
    built costs memory in proportion to the pickle, whatever the pickle says. The call of a function
    that is known to run programs, or to reach outside the pickle, ends the reading.
    """

    stack: list[Any]
    metastack: list[list[Any]]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]

    def __init__(
        self, file: BoundedFile, names: Collection[str], refer: Callable[[Any], Any]
    ) -> None:
        super().__init__(file)
        self.read, self.readline = file.read, file.readline
        self.names = names
        self.refer = refer

    def load(self) -> Any:
        """The value of a pickle; the file stands behind it after."""
        self.metastack, self.stack = [], []
        self.append = self.stack.append
        dispatch, read = self.dispatch, self.read
        for _ in range(MAX_OPERATIONS):
            code = read(1)[0]
            if code == pickle.STOP[0]:
                return self._end()
            dispatch[code](self)
        raise PickleError(f"it has more than {MAX_OPERATIONS} parts besides tensors")

    def _end(self) -> Any:
        if len(self.stack) != 1 or self.metastack:
            raise PickleError("it ends in the middle of a value")
        return self.stack.pop()

    def persistent_load(self, pid: Any) -> Any:
        return self.refer(pid)

    def find_class(self, module: str, name: str) -> Named:
        module, name = NAME_MAPPING.get((module, name), (module, name))  # as Python 2 says it
        full = f"{IMPORT_MAPPING.get(module, module)}.{name}"
        return Named(full if full in self.names else printable(full, LONGEST_NAME))

    def _decode_string(self, value: bytes) -> str | bytes:
        """A string of Python 2, which did not tell text from bytes."""
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value

    def frame(self) -> None:
        """How much could be read at once is of no interest."""
        self.read(8)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.append(Made(function, arguments))

    def call_with_names(self) -> None:
        by_name = self.stack.pop()
        self.call()
        if by_name and self.stack[-1].name in self.names:
            raise PickleError(f"it makes {describe(self.stack[-1])} with arguments by name")
        if by_name:
            self.stack[-1].arguments += (by_name,)

    def _instantiate(self, klass: Any, args: list[Any]) -> None:
        self.append(Made(klass, tuple(args)))

    def build(self) -> None:
        """Note the state of what a call made; a pickle gives each one state."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is not Made or target.state is not None:
            raise PickleError(f"it sets the attributes of {describe(target)}")
        target.state = state

    def new_dict(self) -> None:
        values = self.pop_mark()
        self.append({})
        self._set(values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def set_items(self) -> None:
        self._set(self.pop_mark())

    def _set(self, values: list[Any]) -> None:
        top = self.stack[-1]
        target = top.items if type(top) is Made else top
        if type(target) is not dict or len(values) % 2:
            raise PickleError(f"it adds to {describe(top)} as if it were a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

    def append_one(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def append_all(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        top = self.stack[-1]
        target = top.values if type(top) is Made else top
        if type(target) is not list:
            raise PickleError(f"it adds to {describe(top)} as if it were a list")
        target.extend(values)

    def add_items(self) -> None:
        values, target = self.pop_mark(), self.stack[-1]
        if type(target) is not set:
            raise PickleError(f"it adds to {describe(target)} as if it were a set")
        target.update(map(checked_key, values))

    def frozen_set(self) -> None:
        values = self.pop_mark()
        self.append(frozenset(map(checked_key, values)))

    dispatch: Any = _Operations(
        {code: load for code, load in STANDARD.items() if code not in FORBIDDEN}
    )
    dispatch |= {
        pickle.FRAME[0]: frame,
        pickle.REDUCE[0]: call,
        pickle.NEWOBJ[0]: call,
        pickle.NEWOBJ_EX[0]: call_with_names,
        pickle.BUILD[0]: build,
        pickle.APPEND[0]: append_one,
        pickle.APPENDS[0]: append_all,
        pickle.DICT[0]: new_dict,
        pickle.SETITEM[0]: set_item,
        pickle.SETITEMS[0]: set_items,
        pickle.ADDITEMS[0]: add_items,
        pickle.FROZENSET[0]: frozen_set,
        # The standard one takes memory before it looks whether there are as many bytes.
        pickle.BYTEARRAY8[0]: STANDARD[pickle.BINBYTES8[0]],
    }


def checked_key(key: Any) -> Any:
    """A key that is plain and cheap to hash, a flat tuple of such ones included.

    A class, and an object that a call would make, is told from others by what it is.
    """
    parts = key if type(key) is tuple and len(key) <= MAX_KEY_PARTS else (key,)
    for part in parts:
        if type(part) in (Named, Made, Unread):
            continue
        if type(part) not in KEY_TYPES or (type(part) is int and abs(part) >= 2**64):
            raise PickleError(f"a dict or set has the key {describe(key)}")
    return key


def describe(value: Any) -> str:
    """A value in words that never runs anything of it nor grows large."""
    return value.name if isinstance(value, (Named, Made)) else f"a {type(value).__name__}"


def printable(text: str, limit: int = 200) -> str:
    """A text of the file for a message: on one line, cut short."""
    return text[:limit].encode("unicode_escape").decode()[: 2 * limit]
