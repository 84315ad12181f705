"""AdamW of the JAX backend, as a chain of optax; the other twin has PyTorch's own."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array


def adamw(
    clip_norm: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> optax.GradientTransformationExtraArgs:
    """AdamW (Loshchilov and Hutter 2019) behind clipping by the global norm; only matrices decay.

    ``update`` is given the ``learning_rate`` of its step.
    """
    return optax.chain(
        clip_by_global_norm(clip_norm) if clip_norm > 0 else optax.identity(),
        scale_by_adam(beta1, beta2, eps),
        optax.add_decayed_weights(weight_decay, matrices),
        scale_by_given_rate(),
    )


def clip_by_global_norm(most: float) -> optax.GradientTransformation:
    """``optax.clip_by_global_norm`` by one factor for all.

    XLA then clips wherever it reads a gradient; quotients it would store, and read three times.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        factor = most / jnp.maximum(optax.tree.norm(updates), most)
        return optax.tree.scale(factor, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def scale_by_adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
    """``optax.scale_by_adam`` with bias corrections that are right in float32 too."""
    plain = optax.scale_by_adam(beta1, beta2, eps)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        mu = optax.tree.update_moment(updates, state.mu, beta1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, beta2, 2)
        count = optax.safe_increment(state.count)

        def direction(first: Array, second: Array) -> Array:
            scale = jnp.sqrt(second / correction(beta2, count, second.dtype)) + eps
            return first / correction(beta1, count, first.dtype) / scale

        return jax.tree.map(direction, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(plain.init, update)


def correction(decay: float, count: Any, dtype: jnp.dtype) -> Array:
    """``1 - decay**count``; computed like this in float32 it would lose what cancels."""
    logarithm = math.log(decay) if decay else -math.inf
    return -jnp.expm1(count.astype(dtype) * logarithm)


def matrices(params: Any) -> Any:
    """Which parameters decay."""
    return jax.tree.map(lambda parameter: parameter.ndim > 1, params)


def scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
    """Updates that go down by the ``learning_rate`` that ``update`` is given."""

    def update(updates: Any, state: Any, params: Any = None, **given: Any) -> tuple[Any, Any]:
        rate = given["learning_rate"]
        return jax.tree.map(lambda u: -jnp.asarray(rate, u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def adam_state(state: Any) -> Any:
    """The moments ``mu`` and ``nu`` and the step ``count`` in the state of ``adamw``."""
    return state[1]
