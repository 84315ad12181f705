"""What the calls in pickles of weights make, by our own functions: plain data and tensors' places.

A function here gets finished values only. A ``state`` or ``items`` that it does not ask for, as
anything else that it does not expect, ends the reading.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from convert.formats.arrays import check_shape, shown
from convert.formats.content import Namespace, Unread
from convert.formats.torch_file.tensors import StoredTensor, rebuild_tensor, rebuild_typed_tensor
from convert.formats.torch_file.unpickler import PickleError, checked_key

# By the names that NumPy reads: f4, <f4 and float32 are one type.
NUMBERS = {
    text: np.dtype(order + code)
    for code in (
        "b1",
        "i1",
        "i2",
        "i4",
        "i8",
        "u1",
        "u2",
        "u4",
        "u8",
        "f2",
        "f4",
        "f8",
        "c8",
        "c16",
    )
    for order in ("", "<", ">", "=", "|")
    for text in (order + code, str(np.dtype(order + code)))
}


def _same_tensor(tensor: Any, *_: Any, state: Any = None) -> StoredTensor | Unread:
    """A parameter is the tensor in it, or what stands for one that is not read."""
    if not isinstance(tensor, (StoredTensor, Unread)):
        raise PickleError("a parameter holds something else than a tensor")
    return tensor


def _of_type(function: Any, _: Any, arguments: Any, *__: Any) -> StoredTensor | Unread:
    """A tensor with attributes of its own, which are dropped."""
    if isinstance(function, Unread):
        return Unread(function.name, tuple(arguments))
    make = MAKERS.get(function) if "._rebuild_" in function else None
    if make is None or make is _of_type:
        raise PickleError("a tensor is made by something that makes no tensors")
    return _same_tensor(make(*arguments))


def _dict(pairs: Any = (), *, state: Any = None, items: Any = ()) -> dict[Any, Any]:
    """A dict of any kind; its attributes are dropped."""
    made = {checked_key(key): value for key, value in dict(pairs).items()}
    return made | dict(items)


def _dict_with_default(
    _: Any = None, pairs: Any = (), *, state: Any = None, items: Any = ()
) -> dict[Any, Any]:
    return _dict(pairs, items=items)


def _namespace(kind: str) -> Callable[..., Namespace]:
    def make(*, state: Any = None) -> Namespace:
        values = {} if state is None else state
        if type(values) is not dict or not all(type(name) is str for name in values):
            raise PickleError("a namespace has a state that is no dict of names and values")
        return Namespace(kind, values)

    return make


def _set(values: Any = ()) -> set[Any]:
    return {checked_key(value) for value in values}


def _size(values: Any = ()) -> tuple[Any, ...]:
    return tuple(values)


def _bytes(content: Any = b"", encoding: Any = None) -> bytes:
    return content if type(content) is bytes else _encode(content, encoding)


def _encode(text: Any, encoding: Any = None) -> bytes:
    """How bytes are written in old pickles: as Latin-1 text."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise PickleError("it encodes something else than Latin-1 text")
    return text.encode("latin-1")


def _complex(real: Any, imaginary: Any) -> complex:
    if not {type(real), type(imaginary)} <= {int, float}:
        raise PickleError("a complex number is made of something else than numbers")
    return complex(real, imaginary)


def _device(kind: Any, number: Any = None) -> str:
    return _text(kind) if type(number) is not int else f"{_text(kind)}:{number}"


def _path(*parts: Any) -> str:
    return "/".join(map(_text, parts)).replace("//", "/")


def _text(value: Any) -> str:
    if type(value) is not str:
        raise PickleError("a device, layout or path is made of something else than text")
    return value


def _dtype(text: Any, *_: Any, state: Any = (3, "=", None, None, None)) -> str | Unread:
    """The name of a NumPy type of plain numbers; its state adds the byte order."""
    if type(text) is not str:
        raise PickleError(f"NumPy data of type {shown(text, 40)}, which is no name of one")
    if type(state) is not tuple or len(state) < 5:
        raise PickleError("it has a NumPy type with a wrong state")
    if text not in NUMBERS or any(state[2:5]) or any(state[8:]):
        return Unread("numpy.dtype", (text,))
    if state[1] not in ("<", ">", "=", "|"):
        raise PickleError("it has NumPy data of unknown byte order")
    return str(NUMBERS[text].newbyteorder(state[1]))


def _array(*_: Any, state: Any) -> np.ndarray | Unread:
    """A NumPy array whose numbers come with its state."""
    _, shape, dtype, fortran, content = state
    return _numpy_array(content, dtype, shape, "F" if fortran else "C")


def _numpy_array(content: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray | Unread:
    if isinstance(dtype, Unread):
        return Unread("numpy.ndarray", ())
    if type(dtype) is not str or dtype not in NUMBERS:
        raise PickleError("a NumPy array has no type of plain numbers")
    content = content.encode() if type(content) is str else content  # as Python 2 wrote bytes
    flat = np.frombuffer(content, NUMBERS[dtype])
    lengths = check_shape(shape, flat.dtype)
    return flat.reshape(lengths, order=order).astype(flat.dtype.newbyteorder("="))


def _number(dtype: Any, content: Any) -> Any:
    """A NumPy number as a Python one."""
    found = _numpy_array(content, dtype, ())
    return found if isinstance(found, Unread) else found.item()


MAKERS: dict[str, Callable[..., Any] | None] = {
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict_with_default,
    "collections.Counter": _dict,
    "argparse.Namespace": _namespace("argparse.Namespace"),
    "types.SimpleNamespace": _namespace("types.SimpleNamespace"),
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": rebuild_typed_tensor,
    "torch._utils._rebuild_parameter": _same_tensor,
    "torch._utils._rebuild_parameter_with_state": _same_tensor,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.nn.parameter.Parameter": _same_tensor,
    "torch.Tensor": None,
    "torch.Size": _size,
    "torch.device": _device,
    "torch.serialization._get_layout": _text,
    "_codecs.encode": _encode,
    "copyreg._reconstructor": None,
    "numpy.dtype": _dtype,
    "numpy.ndarray": None,
}
MAKERS |= {
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.complex": _complex,
}
MAKERS |= {f"builtins.{_name}": None for _name in ("dict", "list", "int", "float")}
for _module in ("numpy.core", "numpy._core"):
    MAKERS |= {
        f"{_module}.multiarray.scalar": _number,
        f"{_module}.multiarray._reconstruct": _array,
        f"{_module}.numeric._frombuffer": _numpy_array,
    }
for _name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"):
    MAKERS |= {f"pathlib.{_name}": _path, f"pathlib._local.{_name}": _path}
