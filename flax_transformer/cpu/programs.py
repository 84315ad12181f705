"""How programs are compiled for and run on a processor (CPU), for less memory and time.

XLA asks the C library for all of a program's memory whenever the program runs. Where freed memory
is kept (training_recipe/freed_memory.py), one program of training runs at a time and therefore in
the same memory, and what compiling leaves behind is given back.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from training_recipe.freed_memory import give_back_freed_memory

# XLA drops optimization barriers on processors before it fuses, and then computes the gradient of
# the residual sums from its beginnings in every layer. The pass that drops them is left out.
BARRIERS_STAY = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def compiled(function: Callable[..., Any], device: "jax.Device") -> Any:  # pyright: ignore[reportInvalidTypeForm]
    """``jax.jit(function)`` for a device."""
    return OneAtATime(function) if device.platform == "cpu" else jax.jit(function)


def on_processor(arrays: Any) -> bool:
    """Whether a tree of arrays lies in a processor's memory."""
    return all(d.platform == "cpu" for d in jax.tree.leaves(arrays)[0].devices())


class OneAtATime:
    """A compiled function of which one call runs at a time, in memory that is kept."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.program = jax.jit(function, compiler_options=BARRIERS_STAY)
        self.lower, self.trace = self.program.lower, self.program.trace
        self.shapes: set[tuple[tuple[int, ...], ...]] = set()
        self.last: Any = None  # of the results of the call before

    def __call__(self, *arguments: Any) -> Any:
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(arguments))
        if shapes not in self.shapes:
            self.shapes.add(shapes)
            give_back_freed_memory()
            self.lower(*arguments).compile()
            give_back_freed_memory()
        jax.block_until_ready((self.last, arguments))
        result = self.program(*arguments)
        self.last = jax.tree.leaves(result)[-1]
        return result
