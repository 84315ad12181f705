"""Operations on arrays: what a rule does to the arrays that it takes.

An operation is exact in both directions, ``inverse(*forward(*arrays))`` gives the same bytes, or
refuses the way back (``OneWay``).
"""

from abc import ABC, abstractmethod

import numpy as np

from convert.core.tensors import as_bytes
from transformer_spec import UserError

Arrays = tuple[np.ndarray, ...]
Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]


class RuleError(UserError):
    """Arrays that an operation cannot take."""


class Operation(ABC):
    """Arrays in, arrays out, with the same said of shapes alone; ``label`` is for the ledger.

    ``compares`` says that some arrays are accepted and others refused by their numbers. ``moments``
    says that an optimizer's moments go the same way: each number is trained there as it is here.
    """

    label: str = "copied"
    reversed_label: str = ""  # where it differs
    compares: bool = False
    reversed_compares: bool = False
    moments: bool = True

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
        self.compares = operation.reversed_compares

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
        return (np.concatenate(same_dtype(arrays)),)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        if not shape or shape[0] % self.parts:
            raise RuleError(f"shape {list(shape)} cannot be cut into {self.parts} equal parts")
        return ((shape[0] // self.parts, *shape[1:]),) * self.parts

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        if len(shapes) != self.parts or len(set(shapes)) != 1 or not shapes[0]:
            raise RuleError(f"{self.parts} equal shapes are fused, not {list(map(list, shapes))}")
        return ((shapes[0][0] * self.parts, *shapes[0][1:]),)


class Unstack(Operation):
    """One array taken apart along an axis, a part for each layer; the reverse stacks them."""

    label = "taken apart"
    reversed_label = "stacked"

    def __init__(self, layers: int, axis: int) -> None:
        self.layers = layers
        self.axis = axis

    def forward(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        self.forward_shapes(array.shape)
        return tuple(array.take(layer, self.axis) for layer in range(self.layers))

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        self.inverse_shapes(*(array.shape for array in arrays))
        return (np.stack(same_dtype(arrays), self.axis),)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        if len(shape) <= self.axis or shape[self.axis] != self.layers:
            raise RuleError(
                f"axis {self.axis} of shape {list(shape)} is not of {self.layers} layers"
            )
        return ((*shape[: self.axis], *shape[self.axis + 1 :]),) * self.layers

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        if len(shapes) != self.layers or len(set(shapes)) != 1 or len(shapes[0]) < self.axis:
            raise RuleError(
                f"{self.layers} equal shapes are stacked, not {list(map(list, shapes))}"
            )
        shape = shapes[0]
        return ((*shape[: self.axis], self.layers, *shape[self.axis :]),)


class MergeAxes(Operation):
    """Two neighbouring axes, of known lengths, as one; of each of several arrays alike."""

    label = "axes merged"
    reversed_label = "axis split"

    def __init__(self, axis: int, lengths: tuple[int, int]) -> None:
        self.axis = axis
        self.lengths = lengths

    def forward(self, *arrays: np.ndarray) -> Arrays:
        shapes = self.forward_shapes(*(array.shape for array in arrays))
        return tuple(array.reshape(s) for array, s in zip(arrays, shapes, strict=True))

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        shapes = self.inverse_shapes(*(array.shape for array in arrays))
        return tuple(array.reshape(s) for array, s in zip(arrays, shapes, strict=True))

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        at, after = self.axis, self.axis + 2
        for shape in shapes:
            if shape[at:after] != self.lengths:
                raise RuleError(
                    f"axes {at}, {at + 1} of shape {list(shape)} are not {self.lengths}"
                )
        merged = self.lengths[0] * self.lengths[1]
        return tuple((*shape[:at], merged, *shape[after:]) for shape in shapes)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        at = self.axis
        for shape in shapes:
            if len(shape) <= at or shape[at] != self.lengths[0] * self.lengths[1]:
                raise RuleError(f"axis {at} of shape {list(shape)} is not {self.lengths} merged")
        return tuple((*shape[:at], *self.lengths, *shape[at + 1 :]) for shape in shapes)


class Duplicate(Operation):
    """One array used in several places; the reverse ties them, which needs equal bytes.

    A weight's moments are of the sum over all places, and of none of them alone.
    """

    label = "duplicated"
    reversed_label = "tied"
    reversed_compares = True
    moments = False

    def __init__(self, copies: int) -> None:
        self.copies = copies

    def forward(self, *arrays: np.ndarray) -> Arrays:
        return arrays * self.copies

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        first, *others = same_dtype(arrays)
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


class Chain(Operation):
    """Operations one after the other; the reverse undoes them from the last to the first."""

    def __init__(self, *operations: Operation) -> None:
        self.operations = operations
        self.moments = all(operation.moments for operation in operations)
        self.compares = any(operation.compares for operation in operations)
        self.reversed_compares = any(operation.reversed_compares for operation in operations)
        self.label = ", ".join(operation.label for operation in operations)
        self.reversed_label = ", ".join(step.reversed.label for step in reversed(operations))

    def forward(self, *arrays: np.ndarray) -> Arrays:
        for operation in self.operations:
            arrays = operation.forward(*arrays)
        return arrays

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        for operation in reversed(self.operations):
            arrays = operation.inverse(*arrays)
        return arrays

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        for operation in self.operations:
            shapes = operation.forward_shapes(*shapes)
        return shapes

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        for operation in reversed(self.operations):
            shapes = operation.inverse_shapes(*shapes)
        return shapes


class ZeroRows(Operation):
    """One array with rows of zeros after its own; the reverse cuts them and accepts nothing else.

    ``-0.0`` is not zero here: the bytes could not be had back.
    """

    label = "zero rows added"
    reversed_label = "zero rows cut"

    def __init__(self, count: int) -> None:
        self.count = count

    def forward(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        self.forward_shapes(array.shape)
        zeros = np.zeros((self.count, *array.shape[1:]), array.dtype)
        return (np.concatenate([array, zeros]),)

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        (shape,) = self.inverse_shapes(array.shape)
        if as_bytes(array[shape[0] :]).any():
            raise RuleError(f"the last {self.count} of its {len(array)} rows should be zeros")
        return (array[: shape[0]],)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        if not shape:
            raise RuleError("a single number has no rows")
        return ((shape[0] + self.count, *shape[1:]),)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        if not shape or shape[0] < self.count:
            raise RuleError(f"shape {list(shape)} has no {self.count} rows to cut")
        return ((shape[0] - self.count, *shape[1:]),)


class WithZeros(Operation):
    """A LayerNorm's weight becomes weight and zero bias; the reverse refuses any other bias."""

    label = "zero bias added"
    reversed_label = "zero bias dropped"

    def forward(self, *arrays: np.ndarray) -> Arrays:
        (weight,) = arrays
        return weight, np.zeros_like(weight)

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        weight, bias = arrays
        if as_bytes(bias).any():
            raise RuleError("with bias=False LayerNorms have no bias, and this one is not zero")
        return (weight,)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        return shapes * 2

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        return shapes[:1]


NO_WAY_BACK = "this is done on the way out only"


class OneWay(Operation):
    """An operation without a way back: either backward method is a RuleError."""

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        raise RuleError(NO_WAY_BACK)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        raise RuleError(NO_WAY_BACK)


class Given(OneWay):
    """No array in, a known array out."""

    label = "derived"

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def forward(self, *arrays: np.ndarray) -> Arrays:
        return (self.array,)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        return (self.array.shape,)


class RowsFrom(OneWay):
    """One array without the rows before ``first``."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.label = f"rows from {first}"

    def forward(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        return (array[self.first :],)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        return ((max(shape[0] - self.first, 0), *shape[1:]),)


def same_dtype(arrays: Arrays) -> Arrays:
    """Arrays that become one, of one number format; others are a RuleError."""
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
