"""A pickle reader that can build tensors' descriptions and plain data, nothing else.

A pickle is a program. ``pickle_machine`` runs it over the table below: each entry only describes a
tensor or copies plain data, so no code of the file's choice can run.
"""

from collections.abc import Callable
from typing import IO, Any

from convert.formats.pickle_machine import Machine
from convert.formats.pickle_values import (
    Finisher,
    PickleError,
    StandIn,
    allowance,
    call,
    checked_key,
    printable,
)
from convert.formats.pickled_objects import (
    PendingArray,
    PendingDtype,
    PendingNamespace,
    encode,
    numpy_array,
    numpy_scalar,
)
from convert.formats.pickled_tensors import (
    STORAGES,
    TORCH_DTYPES,
    UNTYPED,
    Storage,
    StoredTensor,
    rebuild_tensor,
    rebuild_typed_tensor,
    stored,
)
from transformer_spec import UserError


def _same_tensor(tensor: Any, *_: Any) -> StoredTensor:
    """A parameter is the tensor in it."""
    if not isinstance(tensor, StoredTensor):
        raise PickleError("a parameter holds something else than a tensor")
    return tensor


def _of_type(function: Any, _: Any, arguments: Any, *__: Any) -> StoredTensor:
    """A tensor with attributes of its own, which are dropped."""
    if not isinstance(function, StandIn) or "._rebuild_" not in function.name:
        raise PickleError("a tensor is made by something that makes no tensors")
    return _same_tensor(call(function, arguments))


def _dict(items: Any = ()) -> dict[Any, Any]:
    pairs = items.items() if type(items) is dict else items
    return {checked_key(key): value for key, value in pairs}


def _dict_with_default(_: Any = None, items: Any = ()) -> dict[Any, Any]:
    return _dict(items)


def _set(values: Any = ()) -> set[Any]:
    return {checked_key(value) for value in values}


def _bytes(content: Any = b"", encoding: Any = None) -> bytes:
    return content if type(content) is bytes else encode(content, encoding)


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


def _array(*_: Any) -> PendingArray:
    return PendingArray()


def _dtype(text: Any, *_: Any) -> PendingDtype:
    return PendingDtype(text)


def _made(kind: Any, *_: Any) -> Any:
    """An object of a class without arguments, as pickles of protocol 0 and 1 make it."""
    return call(kind, ())


def _namespace(kind: str) -> Callable[..., PendingNamespace]:
    return lambda: PendingNamespace(kind)


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
    "torch.Size": tuple,
    "torch.device": _device,
    "torch.serialization._get_layout": _text,
    "_codecs.encode": encode,
    "copyreg._reconstructor": _made,
    "copy_reg._reconstructor": _made,
    UNTYPED: None,
    "numpy.dtype": _dtype,
    "numpy.ndarray": None,
}
for _module in ("builtins", "__builtin__"):
    MAKERS |= {
        f"{_module}.set": _set,
        f"{_module}.frozenset": _set,
        f"{_module}.bytes": _bytes,
        f"{_module}.bytearray": _bytes,
        f"{_module}.complex": _complex,
    }
    MAKERS |= {f"{_module}.{_name}": None for _name in ("object", "dict", "list", "int", "float")}
for _module in ("numpy.core", "numpy._core"):
    MAKERS |= {
        f"{_module}.multiarray.scalar": numpy_scalar,
        f"{_module}.multiarray._reconstruct": _array,
        f"{_module}.numeric._frombuffer": numpy_array,
    }
for _name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"):
    MAKERS |= {f"pathlib.{_name}": _path, f"pathlib._local.{_name}": _path}
MAKERS |= dict.fromkeys(f"torch.{_name}" for _name in (*STORAGES, *TORCH_DTYPES))

TABLE = {name: StandIn(name, make) for name, make in MAKERS.items()}


def load_restricted(file: IO[bytes], label: str, storages: list[Storage] | None = None) -> Any:
    """The plain content of a pickle; anything else in it is a UserError that names it.

    Reads up to the end of the pickle and not beyond; ``storages`` gets each one referred to.
    """
    found: list[Storage] = [] if storages is None else storages

    def refer(pid: Any) -> Storage:
        found.append(stored(pid))
        return found[-1]

    try:
        start = file.tell()
        value = Machine(TABLE, refer).run(file)
        return Finisher(allowance(file.tell() - start)).finish(value)
    except PickleError as error:
        raise UserError(f"{label} is not read: {error}") from error
    except Exception as error:  # a hostile pickle can raise nearly anything
        reason = printable(str(error) or repr(error))
        raise UserError(f"{label} is not read: {reason}") from error
