"""Where a model computes, line for line the twin of flax_transformer/device.py."""

import contextlib
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from torch_transformer.model import Transformer
from torch_transformer.process import find_device
from torch_transformer.weights import load_weights
from training_recipe.distributed.mesh import Mesh
from training_recipe.searching.workers import MOST, ONE_WORKER, Workers
from transformer_spec import TransformerConfig

SETTING = threading.Lock()
BY_OPENMP = "ATen parallel backend: OpenMP"


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
    table, cores = model.target_table, torch.get_num_threads()
    if not table.is_cpu or BY_OPENMP not in torch.__config__.parallel_info():
        return ONE_WORKER  # other pools have one number of cores for all threads
    enabled, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    @contextlib.contextmanager
    def share(count: int) -> Iterator[None]:
        with cores_of_this_thread(cores // count), torch.autocast("cpu", dtype, enabled):
            yield

    return Workers(min(cores, MOST), share, table.itemsize)


@contextlib.contextmanager
def cores_of_this_thread(count: int) -> Iterator[None]:
    """A block in which this thread computes on fewer cores, and those that begin meanwhile do not.

    A thread of OpenMP keeps a number of its own. PyTorch gives it the one that was set last, by
    whichever thread, before the first time that it asks.
    """
    with SETTING:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        again = threading.Thread(target=torch.set_num_threads, args=(before,))
        again.start()
        again.join()
    try:
        yield
    finally:
        with SETTING:
            torch.set_num_threads(before)
