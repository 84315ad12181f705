"""The arrays of a checkpoint in memory under canonical names, read one at a time to be saved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convert.checkpoints.layouts import FIRST, RAW, SECOND
from convert.core.numbers import count_not_finite
from convert.core.tensors import Header, Tensors
from training_recipe.arrays import headers_of
from training_recipe.backend import Checkpoint
from transformer_spec import Faults


class CheckpointTensors(Tensors):
    """Weights, moments and raw weights of a checkpoint; numbers are counted when they are read.

    ``prepare`` asks the checkpoint for an array, which may have to be done by the thread that
    called; several threads may then read, if not the same name.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        groups = {
            "": checkpoint.weights,
            FIRST: checkpoint.first_moments,
            SECOND: checkpoint.second_moments,
            RAW: checkpoint.raw,
        }
        headers: dict[str, Header] = {}
        self.places: dict[str, tuple[Mapping[str, np.ndarray], str]] = {}
        for prefix, arrays in groups.items():
            for name, header in headers_of(arrays).items():
                headers[prefix + name] = Header(header.shape, header.dtype)
                self.places[prefix + name] = arrays, name
        super().__init__(checkpoint.label, headers)
        self.prepared: dict[str, np.ndarray] = {}
        self.not_finite: dict[str, int] = {}

    def prepare(self, name: str) -> None:
        self.prepared[name] = self._asked(name)

    def read(self, name: str) -> np.ndarray:
        array = self.prepared.pop(name, None)
        array = self._asked(name) if array is None else array
        self.not_finite[name] = count_not_finite(array)
        return array

    def _asked(self, name: str) -> np.ndarray:
        arrays, own_name = self.places[name]
        return arrays[own_name]

    def check_finite(self) -> None:
        """NaN or infinity in what was read is a UserError that names every such tensor."""
        faults = Faults()
        for name, header in self.items():
            count, size = self.not_finite.get(name, 0), header.size // header.dtype.itemsize
            faults.require(count == 0, f"{name}: {count:,} of {size:,} numbers")
        faults.raise_if_any("not saved, because these are not finite any more")
