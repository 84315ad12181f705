"""Invertible operations on arrays, and rules that apply them to named arrays.

Every operation is exact in both directions: ``inverse(*forward(*arrays))`` gives the same bytes. A
family of checkpoints is a list of rules; the way back is the same list with every rule reversed.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from convert.tensors import as_bytes
from transformer_spec import UserError

# Tensors without a place in our models are kept under this prefix.
ASIDE = "aside/"

Arrays = tuple[np.ndarray, ...]
Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]


class RuleError(UserError):
    """Arrays that an operation cannot take."""


class Operation(ABC):
    """Arrays in, arrays out, with the same said of shapes alone; ``label`` is for the ledger."""

    label: str = "copied"
    reversed_label: str = ""  # where it differs

    @abstractmethod
    def forward(self, *arrays: np.ndarray) -> Arrays: ...

    @abstractmethod
    def inverse(self, *arrays: np.ndarray) -> Arrays: ...

    @abstractmethod
    def forward_shapes(self, *shapes: Shape) -> Shapes: ...

    @abstractmethod
    def inverse_shapes(self, *shapes: Shape) -> Shapes: ...

    @property
    def reversed(self) -> "Operation":
        return Reversed(self)


class Reversed(Operation):
    """Another operation run the other way."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.label = operation.reversed_label or operation.label

    def forward(self, *arrays: np.ndarray) -> Arrays:
        return self.operation.inverse(*arrays)

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        return self.operation.forward(*arrays)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        return self.operation.inverse_shapes(*shapes)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        return self.operation.forward_shapes(*shapes)

    @property
    def reversed(self) -> Operation:
        return self.operation


class Copy(Operation):
    """One array, unchanged: what a rename does."""

    def forward(self, *arrays: np.ndarray) -> Arrays:
        return arrays

    inverse = forward

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        return shapes

    inverse_shapes = forward_shapes


class Transpose(Operation):
    """One array with its axes in reverse order."""

    label = "transposed"

    def forward(self, *arrays: np.ndarray) -> Arrays:
        return tuple(array.T for array in arrays)

    inverse = forward

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        return tuple(shape[::-1] for shape in shapes)

    inverse_shapes = forward_shapes


class AddAxis(Operation):
    """One array with a new axis of length 1."""

    label = "axis added"
    reversed_label = "axis removed"

    def __init__(self, axis: int = 0) -> None:
        self.axis = axis

    def forward(self, *arrays: np.ndarray) -> Arrays:
        return tuple(np.expand_dims(array, self.axis) for array in arrays)

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        self.inverse_shapes(*(array.shape for array in arrays))
        return tuple(np.squeeze(array, self.axis) for array in arrays)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        return tuple((*shape[: self.axis], 1, *shape[self.axis :]) for shape in shapes)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        for shape in shapes:
            if len(shape) <= self.axis or shape[self.axis] != 1:
                raise RuleError(f"axis {self.axis} of shape {list(shape)} is not of length 1")
        return tuple((*shape[: self.axis], *shape[self.axis + 1 :]) for shape in shapes)


class Split(Operation):
    """One array cut into equal parts along its first axis; the reverse fuses them."""

    label = "split"
    reversed_label = "fused"

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def forward(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        self.forward_shapes(array.shape)
        return tuple(np.split(array, self.parts))

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        self.inverse_shapes(*(array.shape for array in arrays))
        return (np.concatenate(_same_dtype(arrays)),)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        if not shape or shape[0] % self.parts:
            raise RuleError(f"shape {list(shape)} cannot be cut into {self.parts} equal parts")
        return ((shape[0] // self.parts, *shape[1:]),) * self.parts

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        if len(shapes) != self.parts or len(set(shapes)) != 1 or not shapes[0]:
            raise RuleError(f"{self.parts} equal shapes are fused, not {list(map(list, shapes))}")
        return ((shapes[0][0] * self.parts, *shapes[0][1:]),)


class Duplicate(Operation):
    """One array used in several places; the reverse ties them, which needs equal bytes."""

    label = "duplicated"
    reversed_label = "tied"

    def __init__(self, copies: int) -> None:
        self.copies = copies

    def forward(self, *arrays: np.ndarray) -> Arrays:
        return arrays * self.copies

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        first, *others = _same_dtype(arrays)
        if not all(_same_bytes(first, other) for other in others):
            raise RuleError("arrays that should be one (tied) differ")
        return (first,)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        return shapes * self.copies

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        if len(set(shapes)) != 1:
            raise RuleError(f"arrays that should be one have shapes {list(map(list, shapes))}")
        return shapes[:1]


class Constant(Operation):
    """No array in, a zero array of known shape out; the reverse accepts nothing but that array."""

    label = "derived"
    reversed_label = "dropped"

    def __init__(self, shape: Shape, dtype: np.dtype) -> None:
        self.shape = shape
        self.dtype = dtype

    def forward(self, *arrays: np.ndarray) -> Arrays:
        return (np.zeros(self.shape, self.dtype),)

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        if not _same_bytes(array, *self.forward()):
            raise RuleError(f"an array that should be {self.dtype} zeros {self.shape} is not")
        return ()

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        return (self.shape,)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        return ()


def _same_dtype(arrays: Arrays) -> Arrays:
    kinds = {array.dtype for array in arrays}
    if len(kinds) != 1:
        raise RuleError(f"arrays that become one have different types: {sorted(map(str, kinds))}")
    return arrays


def _same_bytes(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal bit for bit, NaN and -0.0 included."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return np.array_equal(as_bytes(one), as_bytes(other))


COPY = Copy()
TRANSPOSE = Transpose()


@dataclass(frozen=True)
class Rule:
    """Arrays of these names become arrays of those names; ``reason`` is for the ledger."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operation: Operation = COPY
    reason: str = ""

    @property
    def reversed(self) -> "Rule":
        operation = self.operation.reversed
        return replace(self, sources=self.targets, targets=self.sources, operation=operation)

    def prefixed(self, source: str, target: str) -> "Rule":
        """The same rule for names that begin with a prefix on either side."""
        sources = tuple(source + name for name in self.sources)
        return replace(self, sources=sources, targets=tuple(target + name for name in self.targets))


def rename(source: str, target: str, operation: Operation = COPY) -> Rule:
    return Rule((source,), (target,), operation)


def reverse(rules: list[Rule]) -> list[Rule]:
    return [rule.reversed for rule in rules]
