"""Biases of linear layers that lie in one array, where some of the layers have none."""

from collections.abc import Sequence

import numpy as np

from convert.core.operations import Arrays, Operation, RuleError, Shape, Shapes, same_dtype


class FusedBiases(Operation):
    """Equally long biases as one array, zeros for a part that is not ``there``.

    The reverse cuts the array and refuses other numbers than 0 there.
    """

    label = "fused with zeros"
    reversed_label = "split, zeros dropped"
    reversed_compares = True

    def __init__(self, there: Sequence[bool]) -> None:
        self.there = tuple(there)

    def forward(self, *arrays: np.ndarray) -> Arrays:
        self.forward_shapes(*(array.shape for array in arrays))
        given = iter(same_dtype(arrays))
        zeros = np.zeros_like(arrays[0])
        return (np.concatenate([next(given) if there else zeros for there in self.there]),)

    def inverse(self, *arrays: np.ndarray) -> Arrays:
        (array,) = arrays
        self.inverse_shapes(array.shape)
        parts = list(zip(np.split(array, len(self.there)), self.there, strict=True))
        if any(part.any() for part, there in parts if not there):
            raise RuleError(
                "the part of it that is the bias of the keys, which the model has not, is not zero"
            )
        return tuple(part for part, there in parts if there)

    def forward_shapes(self, *shapes: Shape) -> Shapes:
        if len(shapes) != sum(self.there) or len(set(shapes)) != 1 or len(shapes[0]) != 1:
            told = list(map(list, shapes))
            raise RuleError(f"{sum(self.there)} equally long biases are fused, not {told}")
        return ((shapes[0][0] * len(self.there),),)

    def inverse_shapes(self, *shapes: Shape) -> Shapes:
        (shape,) = shapes
        if len(shape) != 1 or shape[0] % len(self.there):
            raise RuleError(f"shape {list(shape)} cannot be cut into {len(self.there)} biases")
        return ((shape[0] // len(self.there),),) * sum(self.there)
