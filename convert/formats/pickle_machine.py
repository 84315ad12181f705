"""Runs the program that a pickle is, over plain data and a fixed set of stand-ins.

Python's own unpickler can call what a file names. This machine has no way to: a name in the file
is looked up in a table of our stand-ins, and whatever is not in it ends the reading. Nothing of
the file becomes an attribute or a method of anything.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any

from convert.formats.pickle_values import (
    REPEATS,
    PickleError,
    StandIn,
    Unfinished,
    allowance,
    bounded,
    call,
    checked_key,
    copied,
    describe,
    old_string,
    printable,
)

MAX_OPERATIONS = 10_000_000
MAX_PROTOCOL = 5
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
PLAIN = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
}  # fmt: skip
OLD_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
NOTHING = {"PROTO", "FRAME", "STOP"}


class Machine:
    """The stack, the memo and the operations; ``persistent`` says what outer references mean."""

    def __init__(
        self, table: Mapping[str, StandIn], persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.table = table
        self.persistent = persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.operations = 0
        self.start = self.at = self.spent = 0

    def run(self, file: IO[bytes]) -> Any:
        """The value a pickle describes, unfinished parts in it; the file stands behind it after."""
        self.start = file.tell()
        for opcode, argument, at in pickletools.genops(file):
            self.operations += 1
            self.at = at or 0
            if self.operations > MAX_OPERATIONS:
                raise PickleError(f"it has more than {MAX_OPERATIONS} parts besides tensors")
            self._step(opcode.name, argument)
        if len(self.stack) != 1 or self.below:
            raise PickleError("it ends in the middle of a value")
        return self.stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        if name in PLAIN:
            self.stack.append(bounded(argument))
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in OLD_STRINGS:
            self.stack.append(old_string(argument))
        elif name in OPERATIONS:
            OPERATIONS[name](self, argument)
        elif name not in NOTHING:
            raise PickleError(f"it uses the operation {name}, which no weight file needs")
        elif name == "PROTO" and argument > MAX_PROTOCOL:
            raise PickleError(f"it is of protocol {argument}; at most {MAX_PROTOCOL} is read")

    def _pop(self) -> Any:
        if not self.stack:
            raise PickleError("it takes a value where there is none")
        return self.stack.pop()

    def _top(self) -> Any:
        if not self.stack:
            raise PickleError("it takes a value where there is none")
        return self.stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        if not self.below:
            raise PickleError("it goes back to a mark that it never made")
        values, self.stack = self.stack, self.below.pop()
        return values

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_to_mark()

    def pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self._top())

    def put(self, number: Any) -> None:
        self.memo[number] = self._top()

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self._top()

    def get(self, number: Any) -> None:
        if number not in self.memo:
            raise PickleError(f"it refers to part {number}, which does not exist")
        self.stack.append(self.memo[number])

    def new_tuple(self, _: Any) -> None:
        values = tuple(self._pop_to_mark())
        self.stack.append(values)

    def short_tuple(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def new_list(self, _: Any) -> None:
        values = self._pop_to_mark()
        self.stack.append(values)

    def append(self, _: Any) -> None:
        value = self._pop()
        self._container(list).append(value)

    def appends(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._container(list).extend(values)

    def new_dict(self, _: Any) -> None:
        values = self._pop_to_mark()
        self.stack.append({})
        self._set_items(values)

    def set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def set_items(self, _: Any) -> None:
        self._set_items(self._pop_to_mark())

    def _set_items(self, values: list[Any]) -> None:
        if len(values) % 2:
            raise PickleError("a dict has a key without a value")
        target = self._container(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[checked_key(key)] = value

    def add_items(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._container(set).update(checked_key(value) for value in values)

    def frozen_set(self, _: Any) -> None:
        values = self._pop_to_mark()
        self.stack.append(frozenset(checked_key(value) for value in values))

    def _container(self, kind: type) -> Any:
        target = self._top()
        if type(target) is not kind:
            raise PickleError(f"it adds to {describe(target)} as if it were a {kind.__name__}")
        return target

    def named(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_named(module, name)

    def stack_named(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push_named(module, name)

    def _push_named(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise PickleError("it asks for something whose name is no text")
        full = f"{module}.{name}"
        if full not in self.table:
            raise PickleError(
                f"it asks for {printable(full)}; only tensors, dicts, lists, tuples, numbers, "
                "strings and namespaces are read, and nothing was run; of a whole model save its "
                "state_dict()"
            )
        self.stack.append(self.table[full])

    def call(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        self._call(function, arguments)

    def _call(self, function: Any, arguments: Any) -> None:
        self._spend(arguments)
        self.stack.append(call(function, arguments))

    def _spend(self, values: Any) -> None:
        """Count what a call or state copies: a short pickle could name a long part very often."""
        parts = values if type(values) is tuple else (values,)
        self.spent += sum(map(copied, parts))
        if self.spent > allowance(self.at - self.start):
            raise PickleError(REPEATS)

    def call_with_names(self, _: Any) -> None:
        if self._pop():
            raise PickleError("it makes an object with arguments by name")
        self.call(None)

    def call_marked(self, _: Any) -> None:
        function, *arguments = self._pop_to_mark() or [None]
        self._call(function, tuple(arguments))

    def instance(self, argument: str) -> None:
        arguments = self._pop_to_mark()
        self.named(argument)
        self._call(self._pop(), tuple(arguments))

    def build(self, _: Any) -> None:
        """A namespace, an array or a dtype has a state; the attributes of a dict are dropped."""
        state = self._pop()
        target = self._top()
        if isinstance(target, Unfinished):
            self._spend(state)
            target.build(state)
        elif type(target) is not dict or type(state) is not dict:
            raise PickleError(f"it sets the attributes of {describe(target)}")

    def outer(self, _: Any) -> None:
        if self.persistent is None:
            raise PickleError("it refers to something outside of it")
        self.stack.append(self.persistent(self._pop()))


OPERATIONS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine.mark,
    "POP": Machine.pop,
    "POP_MARK": Machine.pop_mark,
    "DUP": Machine.duplicate,
    "PUT": Machine.put,
    "BINPUT": Machine.put,
    "LONG_BINPUT": Machine.put,
    "MEMOIZE": Machine.memoize,
    "GET": Machine.get,
    "BINGET": Machine.get,
    "LONG_BINGET": Machine.get,
    "EMPTY_TUPLE": lambda machine, _: machine.short_tuple(0),
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "TUPLE": Machine.new_tuple,
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "LIST": Machine.new_list,
    "APPEND": Machine.append,
    "APPENDS": Machine.appends,
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": Machine.new_dict,
    "SETITEM": Machine.set_item,
    "SETITEMS": Machine.set_items,
    "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
    "ADDITEMS": Machine.add_items,
    "FROZENSET": Machine.frozen_set,
    "BYTEARRAY8": lambda machine, argument: machine.stack.append(bytes(argument)),
    "GLOBAL": Machine.named,
    "STACK_GLOBAL": Machine.stack_named,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.call,
    "NEWOBJ_EX": Machine.call_with_names,
    "OBJ": Machine.call_marked,
    "INST": Machine.instance,
    "BUILD": Machine.build,
    "BINPERSID": Machine.outer,
}
