"""What a command tells this process once, before a model computes in it; models set nothing."""

import torch

from training_recipe.freed_memory import keep_freed_memory
from transformer_spec import UserError


def prepare_process(device: str) -> None:
    """Keep freed memory where processors compute."""
    if find_device(device).type == "cpu":
        keep_freed_memory()


def find_device(name: str) -> torch.device:
    """The device of a setting: auto, cpu, gpu or tpu; one that is absent is a UserError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "tpu":
        raise UserError("the torch backend does not run on a TPU; use --backend jax")
    if name == "gpu" and not torch.cuda.is_available():
        raise UserError("--device gpu: PyTorch sees no GPU on this machine; use --device cpu")
    return torch.device("cuda" if name == "gpu" else "cpu")
