"""Float32 means float32: full-precision matrix products unless the user asked JAX for less.

PyTorch multiplies float32 in full by default; JAX uses TF32 on GPUs and one bfloat16 pass on TPUs.

Inside ``products_in("bfloat16")`` operands and results of matrix products are bfloat16. Weights,
residual sums, layer norms, softmax and loss stay in float32.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

PRODUCTS: ContextVar[str] = ContextVar("PRODUCTS", default="")

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run under ``jax_default_matmul_precision`` if that is set, else under "highest"."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.default_matmul_precision(chosen_precision() or "highest"):
            return function(*args, **kwargs)

    return run


def chosen_precision() -> str | None:
    """``jax_default_matmul_precision`` in this thread."""
    return getattr(jax.config, "jax_default_matmul_precision", None)


@contextlib.contextmanager
def products_in(dtype: str) -> Iterator[None]:
    """A block whose matrix products are traced in bfloat16 if that is the ``dtype``."""
    before = PRODUCTS.set(dtype)
    try:
        yield
    finally:
        PRODUCTS.reset(before)


def factors(*arrays: Array) -> tuple[Array, ...]:
    """Arrays as matrix products take them here: bfloat16, or as they are."""
    if PRODUCTS.get() != "bfloat16":
        return arrays
    return tuple(array.astype(jnp.bfloat16) for array in arrays)


def kept(x: Array, dtype: jnp.dtype) -> Array:
    """A sum in ``wide`` numbers where products alone are bfloat16; in a narrow model in its own."""
    return x if PRODUCTS.get() == "bfloat16" else x.astype(dtype)


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """The number format of sums: float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)
