"""Dropout (Srivastava et al. 2014): with masks both twins share, or JAX's own."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool

from flax_transformer.precision import kept, wide
from transformer_spec import UserError
from transformer_spec.dropout_keys import (
    MULTIPLIER_1,
    MULTIPLIER_2,
    SHIFT_1,
    SHIFT_2,
    SITE_STRIDE,
    WORD,
    check_key,
    drop_threshold,
    no_key,
)


@jax.tree_util.register_pytree_node_class
class Dropout:
    """Masks that the PyTorch twin shares: those of one call of the model, by a key of 32 bits.

    Every place that drops out is another site. A step needs a key of its own: of equal keys the
    masks are equal. A compiled function takes it, or its key, as an argument; one that it closes
    over stays the same in every call. A key that is no whole number of 32 bits is a UserError.

    Where a device has some rows of a batch alone, the first of them is the batch's row
    ``first_row``: masks are those that the rows have in the whole batch.
    """

    def __init__(self, key: int | Array, first_row: int | Array = 0) -> None:
        self.key, self.first_row, self.site = _word(key), first_row, 0

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[int, int | None]]:
        """A row that is a plain number is no leaf: programs know it when they are compiled."""
        if isinstance(self.first_row, int):
            return (self.key,), (self.site, self.first_row)
        return (self.key, self.first_row), (self.site, None)

    @classmethod
    def tree_unflatten(cls, known: tuple[int, int | None], leaves: tuple[Any, ...]) -> "Dropout":
        source = cls.__new__(cls)
        source.site, row = known
        source.key, source.first_row = leaves if row is None else (leaves[0], row)
        return source

    def next_key(self) -> Array:
        self.site += 1
        return _hash32(self.key + jnp.uint32(self.site * SITE_STRIDE & WORD))

    def elements_before(self, x: Array) -> Array | int:
        """How many elements the rows before these have, in 32 bits as all indices of elements."""
        if isinstance(self.first_row, int) and self.first_row == 0:
            return jnp.uint32(0)
        each = jnp.uint32(x.size // max(1, x.shape[0]) & WORD)
        return jnp.asarray(self.first_row).astype(jnp.uint32) * each

    def keep_mask(self, x: Array, rate: float) -> Bool[Array, "..."]:
        bits = jax.lax.iota(jnp.uint32, x.size) + self.next_key() + self.elements_before(x)
        return (_hash32(bits) >= jnp.uint32(drop_threshold(rate))).reshape(x.shape)

    def __call__(self, x: Array, rate: float) -> Array:
        return x * (self.keep_mask(x, rate).astype(wide(x.dtype)) * (1 / (1 - rate)))


@jax.tree_util.register_pytree_node_class
class NativeDropout(Dropout):
    """Masks of JAX's own generator, from the same 32 bits; no other twin's."""

    def site_key(self) -> Array:
        return jax.random.key(self.next_key())

    def keep_mask(self, x: Array, rate: float) -> Bool[Array, "..."]:
        bits = jax.random.bits(self.site_key(), x.shape, jnp.uint32)
        return bits >= jnp.uint32(drop_threshold(rate))


@jax.tree_util.register_pytree_node_class
class KeyDropout(NativeDropout):
    """Masks of JAX's own generator, from a ``jax.random.key``."""

    def __init__(self, key: Array) -> None:
        self.key, self.first_row, self.site = key, 0, 0

    def site_key(self) -> Array:
        self.site += 1
        return jax.random.fold_in(self.key, self.site)


SOURCES_ARE = "give one jax.random.key, an nnx.Rngs or a flax_transformer.Dropout"
Given = Dropout | nnx.Rngs | Array | None


def source_of(given: Given) -> Dropout | None:
    """The source of masks that a caller of the model means.

    An ``nnx.Rngs`` gives the next key of its ``dropout`` stream, or of its default one.
    """
    if given is None or isinstance(given, Dropout):
        return given
    key = given.dropout() if isinstance(given, nnx.Rngs) else given
    if not isinstance(key, Array):
        raise UserError(f"dropout is a {type(key).__name__}; {SOURCES_ARE}")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape:
        raise UserError(f"dropout is an array of {key.dtype} {list(key.shape)}; {SOURCES_ARE}")
    return KeyDropout(key)


SOURCES = {"portable": Dropout, "native": NativeDropout}


def drop(x: Array, rate: float, dropout: Dropout | None) -> Array:
    """Zero each element with probability ``rate`` and scale the others by 1/(1-rate)."""
    return x if dropout is None or rate == 0 else kept(dropout(x, rate), x.dtype)


def _word(key: int | Array) -> Array:
    """The key as an array; what is traced is known by its type alone."""
    if not isinstance(key, Array):
        return jnp.uint32(check_key(key))
    if not jnp.issubdtype(key.dtype, jnp.integer) or key.shape:
        raise no_key(f"an array of {key.dtype} {list(key.shape)}")
    return key.astype(jnp.uint32)


def _hash32(bits: Array) -> Array:
    bits = bits ^ (bits >> SHIFT_1)
    bits = bits * jnp.uint32(MULTIPLIER_1)
    bits = bits ^ (bits >> SHIFT_2)
    return bits * jnp.uint32(MULTIPLIER_2)
