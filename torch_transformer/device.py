"""Where a model computes, line for line the twin of flax_transformer/device.py."""

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from torch_transformer.model import Transformer
from torch_transformer.process import find_device
from torch_transformer.weights import load_weights
from training_recipe.distributed.mesh import Mesh
from transformer_spec import TransformerConfig


@contextlib.contextmanager
def numbers_of(dtype: str) -> Iterator[None]:
    """A block in which PyTorch has the numbers of a format, as it always has."""
    yield


def model_on(
    config: TransformerConfig,
    weights: Mapping[str, np.ndarray],
    device: str,
    mesh: Mesh = Mesh(),  # noqa: B008 - frozen
) -> Transformer:
    """The model of a config around {canonical name: NumPy array}, whole on every device."""
    dtype = getattr(torch, str(next(iter(weights.values())).dtype))
    model = Transformer.skeleton(config, dtype)
    load_weights(model, weights)
    return model.to(find_device(device))


def own_copy(model: Transformer) -> Transformer:
    """A model on a mesh as this process has it, to compute without the others."""
    return model
