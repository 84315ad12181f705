"""AdamW of the JAX backend, written out; the other twin has PyTorch's own."""

import jax.numpy as jnp
from jax import Array

from training_recipe.options.settings import TrainingSettings


def adamw_numbers(
    count: int, learning_rate: float, settings: TrainingSettings
) -> tuple[float, float, float]:
    """Learning rate and both bias corrections, in double precision whatever the model's format."""
    corrections = 1 - settings.adam_beta1**count, 1 - settings.adam_beta2**count
    return learning_rate, *corrections


def adamw(
    parameter: Array,
    gradient: Array,
    first: Array,
    second: Array,
    numbers: tuple[Array, Array, Array],
    settings: TrainingSettings,
) -> tuple[Array, Array, Array]:
    """AdamW (Loshchilov and Hutter 2019), with PyTorch's placement of epsilon.

    Only matrices decay. Written out because optax computes 1 - beta**count in float32, which is
    off by 1e-5 in the first steps.
    """
    rate, correction_1, correction_2 = (jnp.asarray(n, parameter.dtype) for n in numbers)
    beta1, beta2 = settings.adam_beta1, settings.adam_beta2
    first = beta1 * first + (1 - beta1) * gradient
    second = beta2 * second + (1 - beta2) * jnp.square(gradient)
    scale = jnp.sqrt(second) / jnp.sqrt(correction_2) + settings.adam_eps
    decay = settings.weight_decay if parameter.ndim > 1 else 0.0
    parameter = parameter * (1 - rate * decay) - rate / correction_1 * first / scale
    return parameter, first, second
