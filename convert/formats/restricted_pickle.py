"""A pickle reader that can build tensors' descriptions and plain containers, nothing else.

A pickle is a program. This reader runs it with every function call but a handful refused, and the
handful are stand-ins that only describe a tensor: no code of the file's choice can run.
"""

import collections
import pickle
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from transformer_spec import UserError

STORAGE_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class Storage(NamedTuple):
    """A run of numbers in the file that tensors are views of."""

    key: str
    dtype: np.dtype
    count: int


class StoredTensor(NamedTuple):
    """A tensor before its numbers are read; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StandIn:
    """What a name in the pickle stands for; it can be called, and not be changed."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it tries to set {name!r} of a function")


class _StorageKind(_StandIn):
    """A storage class: the pickle only mentions it, to say what numbers it holds."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype) -> None:
        super().__init__(_refuse_storage_call)
        object.__setattr__(self, "dtype", dtype)


def _refuse_storage_call(*_: Any) -> Any:
    raise pickle.UnpicklingError("it tries to call a storage class")


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any
) -> StoredTensor:
    """The arguments of torch's own function: rest is requires_grad, hooks, metadata."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor is built from something that is no storage")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise pickle.UnpicklingError(f"a tensor has offset, shape and strides {numbers}")
    if len(rest) > 2 and rest[2]:
        raise pickle.UnpicklingError(f"a tensor has unknown metadata {rest[2]!r}")
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _ordered_dict(*items: Any) -> Any:
    return collections.OrderedDict(*items)


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
}


class RestrictedUnpickler(pickle.Unpickler):
    """Loads numbers, strings, lists, tuples, dicts and descriptions of tensors."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGE_DTYPES:
            return _StorageKind(STORAGE_DTYPES[name])
        if (module, name) in ALLOWED:
            return _StandIn(ALLOWED[module, name])
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}; only tensors, dicts, lists, tuples, numbers and strings "
            "are read, and nothing was run"
        )

    def persistent_load(self, pid: Any) -> Storage:
        """('storage', class, key, device, count): how torch refers to a run of numbers."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no tensor storage")
        kind, key, count = pid[1], pid[2], pid[4]
        if not isinstance(kind, _StorageKind) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError(f"it refers to {pid!r}, which is no tensor storage")
        return Storage(str(key), kind.dtype, count)


def load_restricted(file: IO[bytes], label: str) -> Any:
    """The plain content of a pickle; anything else in it is a UserError that names it."""
    try:
        return RestrictedUnpickler(file).load()
    except Exception as error:  # a hostile pickle can raise nearly anything
        raise UserError(f"{label} is not read: {error}") from error
