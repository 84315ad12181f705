"""Matrix products whose weight gradients are as fast as the product itself on a processor.

XLA's own kernels for a processor take no factor that is transposed on the left: such a product goes
to another library, at 0.5 to 0.75 of the speed (docs/log.md). A weight gradient is one, so the
smaller of its two factors is transposed in memory first. GPUs and TPUs need no such thing.
"""

import jax
from jax import Array
from jaxtyping import Float

from flax_transformer.precision import full_precision


@jax.custom_vjp
def product(left: Float[Array, "N I"], right: Float[Array, "I O"]) -> Float[Array, "N O"]:
    """left @ right."""
    return left @ right


def _forward(left, right):
    return left @ right, (left, right)


@full_precision
def _backward(factors, gradient):
    left, right = factors
    return gradient @ right.T, transposed_product(left, gradient)


product.defvjp(_forward, _backward)


def transposed_product(left: Float[Array, "N I"], right: Float[Array, "N O"]) -> Array:
    """left.T @ right, (I, O)."""
    return jax.lax.platform_dependent(left, right, cpu=transposed, default=plain)


def transposed(left: Array, right: Array) -> Array:
    """left.T @ right with the left factor transposed in memory."""
    barrier = jax.lax.optimization_barrier
    if left.shape[1] > right.shape[1]:
        return barrier(barrier(barrier(right).T) @ left).T
    return barrier(barrier(left).T) @ right


def plain(left: Array, right: Array) -> Array:
    return left.T @ right
