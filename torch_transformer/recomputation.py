"""Layers computed again in the backward pass, the twin of flax_transformer/recomputation.py."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from torch_transformer.dropout import Dropout
from torch_transformer.relative import Bias


def call(
    layer: Callable[..., Tensor],
    recomputed: bool,
    dropout: Dropout | None,
    x: Tensor,
    *others: Any,
    bias: Bias = None,
) -> Tensor:
    """``layer(x, *others, dropout, bias)``; where ``recomputed``, nothing inside of it is kept.

    The second computation drops out what the first did: sites are counted from where it began.
    """
    if not recomputed or not torch.is_grad_enabled():
        return layer(x, *others, dropout, bias)
    site = 0 if dropout is None else dropout.site

    def compute(x: Tensor, *others: Any) -> Tensor:
        if dropout is not None:
            dropout.site = site
        return layer(x, *others, dropout, bias)

    result = checkpoint(compute, x, *others, use_reentrant=False)
    assert isinstance(result, Tensor)
    return result
