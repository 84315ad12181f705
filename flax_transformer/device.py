"""Where a model computes, line for line the twin of torch_transformer/device.py."""

import contextlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from flax_transformer.model import Transformer
from flax_transformer.process import find_device
from flax_transformer.weights import load_weights
from transformer_spec import TransformerConfig, to_flax


@contextlib.contextmanager
def numbers_of(dtype: str) -> Iterator[None]:
    """A block in which JAX has the numbers of a format: float64 only if it is that."""
    with jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext():
        yield


def model_on(
    config: TransformerConfig, weights: Mapping[str, np.ndarray], device: str
) -> Transformer:
    """The model of a config around {canonical name: NumPy array}, on a device."""
    with jax.default_device(find_device(device)):
        model = Transformer.skeleton(config, next(iter(weights.values())).dtype)
        load_weights(model, dict(to_flax(*item) for item in weights.items()))
    return model
