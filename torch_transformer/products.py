"""Products of features' models on processors: by oneDNN, which PyTorch has beside its BLAS.

Of float32 numbers it is the faster of the two (docs/log.md). Sums are rounded otherwise, so models
of tokens, whose numbers are published, keep to the BLAS.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import forward_ad

AVAILABLE = torch.backends.mkldnn.is_available()
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if AVAILABLE else None
# Queries whose scores over 1500 keys stay in a processor's cache, and how many make it worthwhile.
QUERIES = 512


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, quick: bool) -> Tensor:
    """x @ weight.T + bias; the ``quick`` way where no gradient is wanted of it."""
    return product(x, weight, bias) if quick and fits(x) else F.linear(x, weight, bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` by oneDNN."""
    assert ONEDNN is not None
    return ONEDNN(x, weight, bias, "none", [], "")


def fits(x: Tensor) -> bool:
    """Whether oneDNN multiplies it: float32 in a processor's memory, of which nothing is kept."""
    plain = ONEDNN is not None and x.dtype == torch.float32 and x.device.type == "cpu"
    derived = torch.is_grad_enabled() or is_functorch_wrapped_tensor(x) or is_dual(x)
    return plain and not (derived or torch.compiler.is_compiling())


def is_dual(x: Tensor) -> bool:
    """Whether a derivative goes forward with it."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def many(q: Float[Tensor, "B H Q A"], mask: Bool[Tensor, "#B 1 #Q K"]) -> bool:
    """Whether ``attention`` is worthwhile: for many queries that all see the same keys."""
    return fits(q) and q.shape[2] >= QUERIES and mask.shape[2] == 1


def attention(
    q: Float[Tensor, "B H Q A"],
    k: Float[Tensor, "B H K A"],
    v: Float[Tensor, "B H K A"],
    mask: Bool[Tensor, "#B 1 1 K"],
    scale: float,
) -> Float[Tensor, "B H Q A"]:
    """Scaled dot-product attention of many queries, some of them of one head at a time."""
    found, hidden = torch.empty_like(q), None if mask.all() else ~mask.expand(len(q), -1, -1, -1)
    q = q * scale
    for row in range(len(q)):
        for head in range(q.shape[1]):
            keys, values = k[row, head].contiguous(), v[row, head].T.contiguous()
            for first in range(0, q.shape[2], QUERIES):
                part = slice(first, first + QUERIES)
                scores = product(q[row, head, part], keys)  # (Q, A) -> (Q, K)
                if hidden is not None:
                    scores.masked_fill_(hidden[row, 0], torch.finfo(scores.dtype).min)
                found[row, head, part] = product(scores.softmax(-1), values)
    return found
