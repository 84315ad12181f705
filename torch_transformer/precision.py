"""Matrix products in bfloat16, the twin of the second half of flax_transformer/precision.py.

Inside ``products_in("bfloat16")`` operands and results of matrix products are bfloat16, as
torch.autocast has them. Weights, residual sums, layer norms, softmax and loss stay in float32: they
are never autocast, or say so themselves.
"""

import torch
from torch import Tensor


def products_in(dtype: str, device: str) -> torch.autocast:
    """A block whose matrix products are in bfloat16 if that is the ``dtype``."""
    return torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")


def factors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors as matrix products take them here: bfloat16, or as they are."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)


def kept(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A sum in ``wide`` numbers where products alone are bfloat16; in a narrow model in its own."""
    return x if torch.is_autocast_enabled(x.device.type) else x.to(dtype)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The number format of sums: float32 at least."""
    return torch.promote_types(dtype, torch.float32)
