"""Where a model computes, line for line the twin of torch_transformer/device.py."""

import contextlib
from collections.abc import Iterator, Mapping

import jax
import numpy as np

from flax_transformer.compilation_cache import keep_compiled_programs
from flax_transformer.model import Transformer
from flax_transformer.weights import load_weights
from training_recipe.freed_memory import keep_freed_memory
from transformer_spec import TransformerConfig, UserError, to_flax


def prepare_process() -> None:
    """Keep freed memory, and keep what is compiled for the next process."""
    keep_freed_memory()
    keep_compiled_programs()


def find_device(name: str) -> "jax.Device":  # pyright: ignore[reportInvalidTypeForm]
    """The device of a setting: auto, cpu, gpu or tpu; one that is absent is a UserError."""
    try:
        return jax.devices(None if name == "auto" else name)[0]
    except RuntimeError:
        present = sorted({device.platform for device in jax.devices()})
        message = f"--device {name}: JAX sees only {', '.join(present)} on this machine"
        raise UserError(message) from None


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
