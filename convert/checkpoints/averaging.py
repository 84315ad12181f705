"""The mean of several checkpoints' weights, in the files of the torch twin; needs no framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from convert.checkpoints.checkpoint import FORMATS, open_weights
from convert.checkpoints.folders.file_names import MODEL
from convert.checkpoints.records import write_record
from convert.core.ledger import Hashed
from convert.core.tensors import Tensors
from convert.formats.safetensors import write_safetensors
from training_recipe.runs.averages import record_mean
from training_recipe.runs.integrity import damage
from transformer_spec import Faults, TransformerConfig, UserError


class Mean(Tensors):
    """The mean of tensors that have equal names and shapes, in the first one's number format."""

    def __init__(self, parts: list[Tensors]) -> None:
        super().__init__(f"the mean of {len(parts)} checkpoints", parts[0].headers)
        self.parts = parts

    def read(self, name: str) -> np.ndarray:
        total = np.zeros(self[name].shape)
        for part in self.parts:
            total += part.read(name)
        return (total / len(self.parts)).astype(self[name].dtype)


def write_average(folders: list[Path], config: TransformerConfig, destination: Path) -> None:
    """Write the mean of the weights that checkpoint folders are used by, and where it came from.

    Every checkpoint that is damaged, does not fit the config or has another number format than the
    first is named in one UserError.
    """
    parts, faults = [], Faults()
    for folder in folders:
        try:
            parts.append(_whole_weights(folder, config))
            faults.require(_dtypes(parts[-1]) == _dtypes(parts[0]), f"{folder}: other dtypes")
        except UserError as error:
            faults.add(str(error))
    faults.raise_if_any("cannot average")
    mean = Hashed(Mean(parts))
    write_safetensors(destination / MODEL, mean, FORMATS["torch"])
    write_record(destination, mean)
    record_mean(folders, destination)


def _whole_weights(folder: Path, config: TransformerConfig) -> Tensors:
    fault = damage(folder)
    if fault is not None:
        raise UserError(fault)
    return open_weights(folder, config, verify=False)  # its files have just been


def _dtypes(tensors: Tensors) -> list[np.dtype]:
    return [header.dtype for header in tensors.values()]
