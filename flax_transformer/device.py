"""Where a model computes, line for line the twin of torch_transformer/device.py."""

import contextlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from flax import nnx

from flax_transformer.cpu.programs import on_processor
from flax_transformer.model import Transformer
from flax_transformer.placement import OnMesh, place_of
from flax_transformer.precision import chosen_precision
from flax_transformer.weights import load_weights
from training_recipe.distributed.mesh import Mesh
from training_recipe.searching.workers import MOST, ONE_WORKER, Workers
from transformer_spec import TransformerConfig, to_flax
from transformer_spec.cores import cores


@contextlib.contextmanager
def numbers_of(dtype: str) -> Iterator[None]:
    """A block in which JAX has the numbers of a format: float64 only if it is that."""
    with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
        yield


def model_on(
    config: TransformerConfig,
    weights: Mapping[str, np.ndarray],
    device: str,
    mesh: Mesh = Mesh(),  # noqa: B008 - frozen
) -> Transformer:
    """The model of a config around {canonical name: NumPy array}, whole on every device."""
    place = place_of(mesh, device)
    put = place.everywhere if isinstance(place, OnMesh) else place.put
    with jax.default_device(place.device):
        model = Transformer.skeleton(config, next(iter(weights.values())).dtype)
        load_weights(model, dict(to_flax(*item) for item in weights.items()), put)
    return model


def own_copy(model: Transformer) -> Transformer:
    """A model on a mesh as one device of this process has it, to compute without the others."""
    graph, weights = nnx.split(model)
    own = jax.tree.map(lambda array: array.addressable_shards[0].data, weights)
    return nnx.merge(graph, own)


def workers_of(model: Transformer) -> Workers:
    """Who may search side by side by a model: threads whose programs share a processor's cores."""
    weights = nnx.state(model)
    if not on_processor(weights):
        return ONE_WORKER
    wide, precision = jax.config.read("jax_enable_x64"), chosen_precision()  # of this thread

    @contextlib.contextmanager
    def share(count: int) -> Iterator[None]:
        with jax.enable_x64(wide), jax.default_matmul_precision(precision):
            yield

    return Workers(min(cores(), MOST), share, jax.tree.leaves(weights)[0].dtype.itemsize)
