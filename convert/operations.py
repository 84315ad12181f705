"""More invertible operations on arrays: several in a row, and rows of zeros at the end."""

from __future__ import annotations

import numpy as np

from convert.rules import Arrays, Operation, RuleError, Shape, Shapes
from convert.tensors import as_bytes


class Chain(Operation):
    """Operations one after the other; the reverse undoes them from the last to the first."""

    def __init__(self, *operations: Operation) -> None:
        self.operations = operations
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
