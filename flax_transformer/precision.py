"""Float32 means float32: full-precision matrix products unless the user asked JAX for less.

PyTorch multiplies float32 in full by default; JAX uses TF32 on GPUs and one bfloat16 pass on TPUs.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run under ``jax_default_matmul_precision`` if that is set, else under "highest"."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        chosen = getattr(jax.config, "jax_default_matmul_precision", None)
        with jax.default_matmul_precision(chosen or "highest"):
            return function(*args, **kwargs)

    return run
