"""Layers computed again in the backward pass, the twin of torch_transformer/recomputation.py."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from flax_transformer.dropout import Dropout
from flax_transformer.relative import Bias


def call(
    layer: Callable[..., Array],
    recomputed: bool,
    dropout: Dropout | None,
    x: Array,
    *others: Any,
    bias: Bias = None,
) -> Array:
    """``layer(x, *others, dropout, bias)``; where ``recomputed``, nothing inside of it is kept.

    The second computation drops out what the first did: it is the same program.
    """
    if not recomputed:
        return layer(x, *others, dropout, bias)
    return jax.checkpoint(lambda x: layer(x, *others, dropout, bias))(x)
