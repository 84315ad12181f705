"""Where a model computes, line for line the twin of torch_transformer/device.py."""

import contextlib
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flax_transformer.model import Transformer
from flax_transformer.placement import OnMesh, place_of
from flax_transformer.weights import load_weights
from training_recipe.distributed.mesh import Mesh
from transformer_spec import TransformerConfig, to_flax


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
    put = place.everywhere if isinstance(place, OnMesh) else jnp.array
    with jax.default_device(place.device):
        model = Transformer.skeleton(config, next(iter(weights.values())).dtype)
        load_weights(model, dict(to_flax(*item) for item in weights.items()), put)
    return model


def own_copy(model: Transformer) -> Transformer:
    """A model on a mesh as one device of this process has it, to compute without the others."""
    graph, weights = nnx.split(model)
    own = jax.tree.map(lambda array: array.addressable_shards[0].data, weights)
    return nnx.merge(graph, own)
