"""Strict acceptance of named arrays: every fault on either side, in one message."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol, TypeGuard

import numpy as np

from transformer_spec.errors import Faults, printable_name


class Described(Protocol):
    """An array, or what is known of one before it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...


def is_whole(value: object, least: int, most: int | None = None) -> TypeGuard[int]:
    """Whether a value is a whole number of a range, Python's or NumPy's; True and False are not."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    number = int(value)  # pyright: ignore[reportUnknownArgumentType]
    return least <= number and (most is None or number <= most)


def check_names(held: Collection[str], expected: Collection[str]) -> None:
    """Raise one UserError where a model holds other weights than its config says."""
    faults = Faults()
    for name in expected:
        if name not in held:
            faults.add(f"{name} is missing, or under another name", "are missing")
    for name in held:
        if name not in expected:
            faults.add(f"{printable_name(name)} is no weight of it", "are no weights of it")
    faults.raise_if_any("the model was changed and is no longer what its config says")


def check_arrays(
    arrays: Mapping[str, Described],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: np.dtype | type,
    heading: str,
) -> None:
    """Raise one UserError that names missing, extra, wrong-shape and wrong-dtype arrays."""
    faults = Faults()
    for name, shape in shapes.items():
        if name not in arrays:
            faults.add(f"{name}: missing, expected {np.dtype(dtype)} {list(shape)}", "are missing")
        elif not is_described(arrays[name]):
            add_no_array(name, arrays[name], faults)
        elif arrays[name].shape != tuple(shape):
            found = list(arrays[name].shape)
            faults.add(f"{name}: shape {found}, expected {list(shape)}", "have the wrong shape")
        elif arrays[name].dtype != dtype:
            found = arrays[name].dtype
            faults.add(f"{name}: dtype {found}, expected {np.dtype(dtype)}", "have another dtype")
    for name in arrays:
        if name not in shapes:
            faults.add(
                f"{printable_name(name)}: not a weight of this model",
                "are no weights of this model",
            )
    faults.raise_if_any(heading)


def is_described(value: Any) -> bool:
    """Whether a value has NumPy's shape and dtype; a list has neither, a torch.Tensor its own."""
    return hasattr(value, "shape") and isinstance(getattr(value, "dtype", None), np.dtype)


def add_no_array(name: str, value: object, faults: Faults) -> None:
    """Add the fault of a weight that is no NumPy array."""
    fault = f"{printable_name(name)}: a {type(value).__name__}, expected a NumPy array"
    faults.add(fault, "are no NumPy arrays")
