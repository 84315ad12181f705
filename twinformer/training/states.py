"""The state of a backend in the files of a checkpoint folder, and before any step."""

from __future__ import annotations

from pathlib import Path

from convert.checkpoints import (
    open_weights_of,
    read_checkpoint,
    write_flax_checkpoint,
    write_torch_checkpoint,
)
from convert.core.tensors import as_parts
from training_recipe.backend import Backend, Checkpoint
from training_recipe.distributed.processes import ALONE, Processes
from training_recipe.distributed.reading import announced, answer
from training_recipe.first_weights import first_weights
from training_recipe.options.settings import TrainingSettings
from transformer_spec import TransformerConfig

WRITERS = {"torch": write_torch_checkpoint, "jax": write_flax_checkpoint}


def first_state(config: TransformerConfig, settings: TrainingSettings) -> Checkpoint:
    """What a new run begins with, in either backend."""
    return Checkpoint(first_weights(config, settings))


def save_state(backend: Backend, folder: Path, processes: Processes = ALONE.processes) -> None:
    """Write weights and optimizer state into an existing empty folder, as its ecosystem does.

    Of several processes the first one writes, an array at a time, and the others take part in
    reading them; what goes wrong in writing is raised in the first alone.
    """
    write, state = WRITERS[backend.name], backend.parts()
    if processes.count == 1:
        write(folder, state)
    elif processes.first:
        with announced(state, processes) as told:
            write(folder, told)
    else:
        answer(state, processes)


def read_state(folder: Path, verify: bool = True) -> Checkpoint:
    """What a run goes on from, in either backend; a fault in the files is a UserError.

    So are tensors that are not what was saved, here and below, unless told not to ``verify``; they
    are found when the arrays are read, one at a time.
    """
    return read_checkpoint(folder, verify)


def use_weights(backend: Backend, folder: Path, verify: bool = True) -> None:
    """Take the weights that a checkpoint folder is used by, to judge them.

    The optimizer begins anew: no moments, and 0 steps.
    """
    _, weights = open_weights_of(folder, backend.config, verify)
    backend.restore(Checkpoint(as_parts(weights), label=str(folder)))
