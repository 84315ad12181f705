"""Where a model computes, line for line the twin of flax_transformer/device.py."""

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from torch_transformer.model import Transformer
from torch_transformer.process import find_device
from torch_transformer.weights import load_weights
from training_recipe.distributed.mesh import Mesh
from training_recipe.searching.workers import MOST, ONE_WORKER, Workers
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


def workers_of(model: Transformer) -> Workers:
    """Who may search side by side by a model: threads with a part of a processor's cores each."""
    cores, openmp = torch.get_num_threads(), "OpenMP" in torch.__config__.parallel_info()
    if model.target_table.device.type != "cpu" or not openmp:  # others have one count for all
        return ONE_WORKER

    @contextlib.contextmanager
    def share(count: int) -> Iterator[None]:
        torch.set_num_threads(cores // count)  # of this thread, and of those not begun yet
        try:
            yield
        finally:
            torch.set_num_threads(cores)

    return Workers(min(cores, MOST), share)
