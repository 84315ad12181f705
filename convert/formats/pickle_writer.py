"""Writes the pickle of a plain tree with tensors in it, as torch's readers expect it."""

import math
import struct
from collections.abc import Mapping
from typing import Any

from convert.core.tensors import Header
from convert.formats.content import Namespace, Placed
from convert.formats.pickled_tensors import STORAGES, UNTYPED

STORAGE_OF = {dtype: storage for storage, dtype in STORAGES.items()}


class PickleWriter:
    """Pickle protocol 2; ``keys`` numbers the tensors in the order in which they are met.

    ``tensors`` gives each name's torch type and header.
    """

    def __init__(self, tensors: Mapping[str, tuple[str, Header]]) -> None:
        self.tensors = tensors
        self.keys: dict[str, str] = {}

    def program(self, content: Any) -> bytes:
        return b"\x80\x02" + self.write(content) + b"."

    def write(self, value: Any) -> bytes:
        """The operations that leave one value on the stack; TypeError for what is not plain."""
        if isinstance(value, Placed):
            return self._tensor(value.name)
        if isinstance(value, Namespace):
            return _namespace(value.kind) + self._dict(value) + b"b"
        if isinstance(value, Mapping):
            return self._dict(value)
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, list):
            return b"](" + b"".join(map(self.write, value)) + b"e"
        return _plain(value)

    def _dict(self, values: Mapping[Any, Any]) -> bytes:
        parts = [self.write(key) + self.write(value) for key, value in values.items()]
        return b"}(" + b"".join(parts) + b"u"

    def _tuple(self, values: tuple[Any, ...]) -> bytes:
        return b"(" + b"".join(map(self.write, values)) + b"t" if values else b")"

    def _tensor(self, name: str) -> bytes:
        """The call that makes a tensor of a storage, in row order."""
        dtype, header = self.tensors[name]
        key = self.keys.setdefault(name, str(len(self.keys)))
        view = _plain(0) + self._tuple(header.shape) + self._tuple(_strides(header.shape))
        hooks = _plain(False) + _named("collections.OrderedDict") + b")R"
        if dtype in STORAGE_OF:
            count = header.size // header.dtype.itemsize
            storage = self._storage(f"torch.{STORAGE_OF[dtype]}", key, count)
            return _named("torch._utils._rebuild_tensor_v2") + b"(" + storage + view + hooks + b"tR"
        storage = self._storage(UNTYPED, key, header.size)
        made = _named("torch._utils._rebuild_tensor_v3") + b"(" + storage + view + hooks
        return made + _named(f"torch.{dtype}") + b"tR"

    def _storage(self, kind: str, key: str, count: int) -> bytes:
        parts = [_plain("storage"), _named(kind), _plain(key), _plain("cpu"), _plain(count)]
        return b"(" + b"".join(parts) + b"tQ"


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of an array in row order, in elements; an axis of length 0 counts as 1, as in torch."""
    return tuple(math.prod(max(n, 1) for n in shape[axis + 1 :]) for axis in range(len(shape)))


def _named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def _namespace(kind: str) -> bytes:
    """Empty objects of the two classes, each made as it makes itself."""
    return _named(kind) + (b")\x81" if kind == "argparse.Namespace" else b")R")


def _plain(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        content = value.encode("utf-8")
        return b"X" + struct.pack("<I", len(content)) + content
    raise TypeError(f"a .pt file cannot hold {type(value).__name__}")


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content
