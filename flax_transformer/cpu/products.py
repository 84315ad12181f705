"""Matrix products as fast as XLA can do them on a processor.

XLA's own kernels for a processor take no factor that is transposed on the left: such a product goes
to another library, at 0.5 to 0.75 of the speed (docs/log.md). A weight gradient is one, so the
smaller of its two factors is transposed in memory first. And XLA widens bfloat16 factors to float32
before it multiplies them, unless it is asked for sums in float32: they are, as in every bfloat16
unit, and rounded after.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from flax_transformer.cpu.gradients import add_bias
from flax_transformer.precision import factors, full_precision, wide


def linear(
    x: Float[Array, "*B I"], kernel: Float[Array, "I O"], bias: Float[Array, "O"] | None
) -> Float[Array, "*B O"]:
    """x @ kernel + bias, in bfloat16 where matrix products are."""
    flat = product(*factors(x.reshape(-1, x.shape[-1]), kernel))
    flat = flat if bias is None else add_bias(flat, *factors(bias))
    return flat.reshape(*x.shape[:-1], -1)


def project(x: Float[Array, "*B D"], table: Float[Array, "V D"]) -> Float[Array, "*B V"]:
    """x @ table.T."""
    flat = summed(x.reshape(-1, x.shape[-1]), table, 1).astype(x.dtype)
    return flat.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def product(left: Float[Array, "N I"], right: Float[Array, "I O"]) -> Float[Array, "N O"]:
    """left @ right in the factors' own number format."""
    return summed(left, right).astype(left.dtype)


def _forward(left, right):
    return summed(left, right).astype(left.dtype), (left, right)


@full_precision
def _backward(factors, gradient):
    left, right = factors
    d_left = summed(gradient, right, 1).astype(left.dtype)
    return d_left, transposed_product(left, gradient).astype(right.dtype)


product.defvjp(_forward, _backward)


def summed(left: Float[Array, "N I"], right: Array, axis: int = 0) -> Float[Array, "N O"]:
    """The product of (N, I) and (I, O), or with ``axis`` 1 (O, I), in the number format of sums."""
    dimensions = ((1,), (axis,)), ((), ())
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=wide(left.dtype))


def transposed_product(left: Float[Array, "N I"], right: Float[Array, "N O"]) -> Array:
    """left.T @ right, (I, O), in the number format of sums."""
    return jax.lax.platform_dependent(left, right, cpu=_transposed_first, default=_as_it_is)


def _transposed_first(left: Array, right: Array) -> Array:
    if left.shape[1] > right.shape[1]:
        return jax.lax.optimization_barrier(summed(in_memory(right), left)).T
    return summed(in_memory(left), right)


def in_memory(x: Float[Array, "N D"]) -> Float[Array, "D N"]:
    """x.T, written to memory; of bfloat16 by a product with the identity, which is faster.

    The identity rounds nothing, but spreads what is not finite: such a step is given up anyway.
    """
    barrier = jax.lax.optimization_barrier
    if x.dtype == jnp.bfloat16:
        return barrier(summed(jnp.eye(x.shape[1], dtype=x.dtype), x, 1).astype(x.dtype))
    return barrier(barrier(x).T)


def _as_it_is(left: Array, right: Array) -> Array:
    return summed(left.T, right)
