"""Dropout (Srivastava et al. 2014): with masks both twins share, or JAX's own."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from flax_transformer.precision import wide
from transformer_spec.dropout_keys import (
    MULTIPLIER_1,
    MULTIPLIER_2,
    SHIFT_1,
    SHIFT_2,
    SITE_STRIDE,
    WORD,
    drop_threshold,
)


class Dropout:
    """One batch's source of masks; every call is another site. ``key`` is a 32-bit number."""

    def __init__(self, key: int | Array) -> None:
        self.key, self.site = jnp.asarray(key, jnp.uint32), 0

    def next_key(self) -> Array:
        self.site += 1
        return _hash32(self.key + jnp.uint32(self.site * SITE_STRIDE & WORD))

    def keep_mask(self, x: Array, rate: float) -> Bool[Array, "..."]:
        bits = jax.lax.iota(jnp.uint32, x.size) + self.next_key()
        return (_hash32(bits) >= jnp.uint32(drop_threshold(rate))).reshape(x.shape)

    def __call__(self, x: Array, rate: float) -> Array:
        return x * (self.keep_mask(x, rate).astype(wide(x.dtype)) * (1 / (1 - rate)))


class NativeDropout(Dropout):
    """Masks of JAX's default generator, whose key is made of the batch's key; no other's."""

    def keep_mask(self, x: Array, rate: float) -> Bool[Array, "..."]:
        bits = jax.random.bits(jax.random.key(self.next_key()), x.shape, jnp.uint32)
        return bits >= jnp.uint32(drop_threshold(rate))


SOURCES = {"portable": Dropout, "native": NativeDropout}


def drop(x: Array, rate: float, dropout: Dropout | None) -> Array:
    """Zero each element with probability ``rate`` and scale the others by 1/(1-rate)."""
    return x if dropout is None or rate == 0 else dropout(x, rate)


def _hash32(bits: Array) -> Array:
    bits = bits ^ (bits >> SHIFT_1)
    bits = bits * jnp.uint32(MULTIPLIER_1)
    bits = bits ^ (bits >> SHIFT_2)
    return bits * jnp.uint32(MULTIPLIER_2)
