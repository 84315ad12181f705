"""Checkpoints of either backend, and folders of weights: found, read, written, averaged."""

from convert.checkpoints.averaging import write_average
from convert.checkpoints.checkpoint import (
    Checkpoint,
    check_checkpoint,
    load_weights_of,
    open_weights,
    open_weights_of,
    read_checkpoint,
    write_flax_checkpoint,
    write_torch_checkpoint,
)

__all__ = [
    "Checkpoint",
    "check_checkpoint",
    "load_weights_of",
    "open_weights",
    "open_weights_of",
    "read_checkpoint",
    "write_average",
    "write_flax_checkpoint",
    "write_torch_checkpoint",
]
