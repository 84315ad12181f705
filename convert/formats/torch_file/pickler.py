"""Pickles of plain trees with tensors in them, as torch's readers expect them."""

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convert.core.tensors import Header
from convert.formats.content import Namespace, Placed
from convert.formats.torch_file.tensors import STORAGES, TORCH_DTYPES, UNTYPED

DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
STORAGE_OF = {TORCH_DTYPES[name]: f"torch.{storage}" for storage, name in STORAGES.items()}
PLAIN = (dict, list, tuple, str, int, float, bool, type(None))


@dataclass(frozen=True)
class _Global:
    """A function or class that is written by its name, wherever it may be."""

    name: str

    def __call__(self) -> None:
        """Never: the pickler asks for something that looks as if it could be called."""


@dataclass(frozen=True)
class _Storage:
    """What torch is told of a run of numbers."""

    kind: str
    key: str
    count: int


class Pickler(pickle._Pickler):
    """Python's own pickler with tensors; ``keys`` numbers them in the order in which they are met.

    It is the one written in Python: the one in C imports whatever it names. Equal trees give equal
    bytes, whichever of their parts are one object.
    """

    def __init__(self, headers: Mapping[str, Header]) -> None:
        self.file = io.BytesIO()
        super().__init__(self.file, protocol=2)
        self.fast = True  # writes no references to parts met before
        self.headers = headers
        self.keys: dict[str, str] = {}

    def program(self, content: Any) -> bytes:
        """The pickle of a tree; TypeError for what is not plain."""
        self.dump(content)
        return self.file.getvalue()

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, _Storage):
            return "storage", _Global(obj.kind), obj.key, "cpu", obj.count
        return None

    def reducer_override(self, obj: Any) -> Any:
        """What is no plain value, as a name or as a call with its arguments and its state."""
        if type(obj) in PLAIN:
            return NotImplemented
        if isinstance(obj, Placed):
            return self._tensor(obj.name)
        if isinstance(obj, Namespace):
            return _Global(obj.kind), (), dict(obj)
        if isinstance(obj, OrderedDict):
            return _Global("collections.OrderedDict"), ()
        if isinstance(obj, _Global):
            return obj.name
        raise TypeError(f"a .pt file cannot hold {type(obj).__name__}")

    def save_global(self, obj: _Global, name: str) -> None:
        module, _, attribute = name.rpartition(".")
        self.file.write(pickle.GLOBAL + f"{module}\n{attribute}\n".encode())

    def _tensor(self, name: str) -> tuple[_Global, tuple[Any, ...]]:
        """The call that makes a tensor of a storage, in row order."""
        shape, dtype = header = self.headers[name]
        key = self.keys.setdefault(name, str(len(self.keys)))
        rest = 0, shape, _strides(shape), False, OrderedDict()
        if dtype in STORAGE_OF:
            storage = _Storage(STORAGE_OF[dtype], key, header.size // dtype.itemsize)
            return _Global("torch._utils._rebuild_tensor_v2"), (storage, *rest)
        typed = _Global(f"torch.{DTYPE_NAMES[dtype]}")
        storage = _Storage(UNTYPED, key, header.size)
        return _Global("torch._utils._rebuild_tensor_v3"), (storage, *rest, typed)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of an array in row order, in elements; an axis of length 0 counts as 1, as in torch."""
    return tuple(math.prod(max(n, 1) for n in shape[axis + 1 :]) for axis in range(len(shape)))
