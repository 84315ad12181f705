"""Operations of exports alone: arrays that are made, and arrays of which a part is not used."""

from __future__ import annotations

import numpy as np

from convert.rules import Arrays, Operation, RuleError, Shape, Shapes

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
