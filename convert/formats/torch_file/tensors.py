"""What torch's pickles say about tensors: their types, their storages, and the views of those."""

import math
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from convert.formats.arrays import check_lengths, check_shape
from convert.formats.content import Leaf
from convert.formats.torch_file.unpickler import Named, PickleError

TORCH_DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
}
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}
# Of quantized tensors: whole numbers, which a scale and a zero point beside them give a meaning.
QUANTIZED = {
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
}
UNTYPED = "torch.storage.UntypedStorage"


NAMES = {UNTYPED, *(f"torch.{name}" for name in (*STORAGES, *QUANTIZED, *TORCH_DTYPES))}


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of ``count`` numbers that tensors are views of, ``start`` bytes into its bytes."""

    key: str
    dtype: np.dtype
    count: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class StoredTensor(Leaf):
    """A tensor before its numbers are read; offset and strides count elements."""

    storage: Storage
    offset: int
    strides: tuple[int, ...]


def whole(storage: Storage) -> StoredTensor:
    """All numbers of a storage as one flat tensor."""
    return StoredTensor((storage.count,), storage.dtype, storage, 0, (1,))


def view(flat: StoredTensor, start: int, shape: tuple[int, ...]) -> StoredTensor:
    """Some of the numbers of a flat tensor that lies densely, in row order of a shape."""
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return replace(flat, shape=shape, offset=flat.offset + start, strides=strides)


def rebuild_tensor(numbers: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> StoredTensor:
    """The arguments of torch's own function: rest is requires_grad, hooks, metadata."""
    if len(rest) > 2 and rest[2]:
        raise PickleError("a tensor is marked as conjugate or negative, which is not read")
    return _stored(numbers, offset, shape, strides, None)


def rebuild_typed_tensor(
    numbers: Any, offset: Any, shape: Any, strides: Any, _: Any, __: Any, dtype: Any, *rest: Any
) -> StoredTensor:
    """The same with a type, for those that have no storage class of their own."""
    name = dtype.removeprefix("torch.") if type(dtype) is str else ""
    if name not in TORCH_DTYPES or any(rest):
        raise PickleError("a tensor is of a type that is not read")
    return _stored(numbers, offset, shape, strides, TORCH_DTYPES[name])


def _stored(
    numbers: Any, offset: Any, shape: Any, strides: Any, dtype: np.dtype | None
) -> StoredTensor:
    """A checked view; ``dtype`` where the storage counts bytes."""
    if not isinstance(numbers, StoredTensor):
        raise PickleError("a tensor is built from something that is no storage")
    storage = numbers.storage
    if dtype is not None:
        count = storage.count * storage.dtype.itemsize // dtype.itemsize
        storage = Storage(storage.key, dtype, count, storage.start)
    (offset,) = check_lengths((offset,), "offset")
    shape = check_shape(shape, storage.dtype)
    strides = check_lengths(strides, "strides")
    if len(shape) != len(strides):
        raise PickleError(f"a tensor has {len(shape)} dimensions and {len(strides)} strides")
    return StoredTensor(shape, storage.dtype, storage, offset, strides)


def stored(pid: Any) -> StoredTensor:
    """('storage', class, key, device, count[, view]): how torch refers to a run of numbers.

    The view, only in files of PyTorch before 0.4, is (its own key, offset, count) in elements.
    """
    if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
        raise PickleError("it refers to something that is no tensor storage")
    dtype, key, view = _storage_type(pid[1]), pid[2], (pid[5] if len(pid) == 6 else None)
    if type(key) is not str:
        raise PickleError("it refers to a storage whose key is no text")
    (count,) = check_lengths((pid[4],), "storage size")
    if view is None:
        return whole(Storage(key, dtype, count))
    offset, count = check_lengths(view[1:], "view of a storage")
    return whole(Storage(key, dtype, count, offset * dtype.itemsize))


def _storage_type(kind: Any) -> np.dtype:
    """The numbers in a storage of a class that the pickle only names."""
    name = kind.name if isinstance(kind, Named) else ""
    if name == UNTYPED:
        return np.dtype(np.uint8)
    found = (STORAGES | QUANTIZED).get(name.removeprefix("torch."))
    if found is None:
        raise PickleError("it refers to something that is no tensor storage")
    return TORCH_DTYPES[found]
