"""Where a model computes, line for line the twin of flax_transformer/device.py."""

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from torch_transformer.model import Transformer
from torch_transformer.weights import load_weights
from training_recipe.freed_memory import keep_freed_memory
from transformer_spec import TransformerConfig, UserError


def prepare_process() -> None:
    """Keep freed memory."""
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


@contextlib.contextmanager
def numbers_of(dtype: str) -> Iterator[None]:
    """A block in which PyTorch has the numbers of a format, as it always has."""
    yield


def model_on(
    config: TransformerConfig, weights: Mapping[str, np.ndarray], device: str
) -> Transformer:
    """The model of a config around {canonical name: NumPy array}, on a device."""
    dtype = getattr(torch, str(next(iter(weights.values())).dtype))
    model = Transformer.skeleton(config, dtype)
    load_weights(model, weights)
    return model.to(find_device(device))
