"""Matrix products as fast as PyTorch can do them on a processor.

PyTorch multiplies by a BLAS, MKL on x86, and has oneDNN beside it. MKL gives a processor that is
not Intel's its code for AVX2, whatever the processor has: there float32 products go to oneDNN,
which is 1.1 times as fast without AVX-512 and 2.2 times with it (docs/log.md). Features' models,
whose windows are long, go to oneDNN everywhere where no gradient is wanted.
"""

import os
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.parameter import Parameter

AVAILABLE = torch.backends.mkldnn.is_available()
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if AVAILABLE else None
# Queries whose scores over 1500 keys stay in a processor's cache, and how many make it worthwhile.
QUERIES = 512
# Without AVX-512 the BLAS is as fast at products of two transposed factors whose sides are alike.
WIDE = "AVX512" in torch.backends.cpu.get_cpu_capability()
LONGER = 4
# Multiplications below which the BLAS, which starts sooner, has done a product and one with its
# gradient, and rows below which oneDNN's gradient of weights is slow.
LEAST, LEAST_TRAINED, FEWEST = 1_500_000, 2_500_000, 64


def vendor() -> str:
    """Whose processor it is, as it names itself; "" where the system does not say."""
    place, names = Path("/proc/cpuinfo"), ("GenuineIntel", "AuthenticAMD", "HygonGenuine")
    said = place.read_text("utf-8") if place.exists() else os.environ.get("PROCESSOR_IDENTIFIER")
    return next((name for name in names if name in (said or "")), "")


# Whether PyTorch's BLAS is the slower one here.
SLOW_BLAS = torch.backends.mkl.is_available() and vendor() not in ("", "GenuineIntel")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, quick: bool = False) -> Tensor:
    """x @ weight.T + bias; ``quick``: by oneDNN on all processors where no gradient is wanted.

    Small ones of a ``quick`` model too: left to the BLAS they cost more (docs/log.md).
    """
    if not (plain(x, weight) and fitting(x, weight, bias)):
        return F.linear(x, weight, bias)
    work, rows = x.numel() * len(weight), x.numel() // x.shape[-1]
    if not torch.is_grad_enabled():
        chosen = quick or (work >= LEAST and SLOW_BLAS)
        return product(x, weight, bias) if chosen else F.linear(x, weight, bias)
    chosen = work >= LEAST_TRAINED and rows >= FEWEST and SLOW_BLAS
    return _Linear.apply(x, weight, bias) if chosen else F.linear(x, weight, bias)


class _Linear(torch.autograd.Function):
    """``F.linear`` whose products, those of its gradient too, are by oneDNN."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        by_x, by_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if by_weight else None, weight if by_x else None)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx, *upstream):
        (x, weight), (gradient,) = ctx.saved_tensors, upstream
        by_x, by_weight, by_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        d_bias = rows.sum(0) if by_bias else None
        # In a wrapper, or one of which a gradient will be asked for: by PyTorch's own operations.
        plainly = plain(gradient) and not torch.is_grad_enabled()
        d_x = d_weight = None
        if by_x:
            d_x = product(gradient, weight.T) if plainly else gradient @ weight
        if by_weight:
            flat = x.reshape(-1, x.shape[-1])
            d_weight = transposed_product(rows, flat).contiguous() if plainly else rows.T @ flat
        return d_x, d_weight, d_bias


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear`` by oneDNN, which takes thousands of times as long for a weight with gaps."""
    assert ONEDNN is not None
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()
    return ONEDNN(x, weight, bias, "none", [], "")


def times(left: Float[Tensor, "N O"], right: Float[Tensor, "O I"]) -> Float[Tensor, "N I"]:
    """left @ right, of which no gradient is wanted."""
    return product(left, right.T) if SLOW_BLAS and plain(left, right) else left @ right


def add_transposed(
    sums: Float[Tensor, "I O"], left: Float[Tensor, "N I"], right: Float[Tensor, "N O"]
) -> None:
    """Add left.T @ right, of which no gradient is wanted; quickest to ``transposed_zeros``."""
    if SLOW_BLAS and len(left) >= FEWEST and plain(left, right):
        sums += transposed_product(left, right)
    elif left.dtype == sums.dtype:
        sums.addmm_(left.T, right)
    else:
        sums += left.T @ right


def transposed_zeros(like: Float[Tensor, "I O"], dtype: torch.dtype) -> Float[Tensor, "I O"]:
    """Zeros that lie in memory as ``add_transposed`` of so many rows makes what it adds."""
    if SLOW_BLAS and plain(like) and like.shape[0] > like.shape[1]:
        return torch.zeros_like(like.T, dtype=dtype, memory_format=torch.contiguous_format).T
    return torch.zeros_like(like, dtype=dtype)


def transposed_product(left: Float[Tensor, "N I"], right: Float[Tensor, "N O"]) -> Tensor:
    """left.T @ right, (I, O); oneDNN is the faster the fewer its rows are."""
    I, O = left.shape[1], right.shape[1]  # noqa: E741
    if not WIDE and max(I, O) < LONGER * min(I, O):
        return left.T @ right
    return product(left.T, right.T) if I <= O else product(right.T, left.T).T


def plain(*factors: Tensor) -> bool:
    """Whether oneDNN multiplies them: float32 in a processor's memory, not traced or wrapped."""
    if torch.compiler.is_compiling() or ONEDNN is None or watched():
        return False
    wanted = torch.backends.mkldnn.enabled and not torch.is_autocast_enabled("cpu")
    return wanted and all(dense(x) for x in factors)


def watched() -> bool:
    """Whether operations are transformed, traced or counted by what knows PyTorch's own alone."""
    transformed = torch._C._are_functorch_transforms_active()
    traced = torch._C._get_tracing_state() is not None
    return transformed or traced or torch._C._len_torch_dispatch_stack() > 0


def dense(x: Tensor) -> bool:
    """Whether it is float32 numbers in a processor's memory and nothing else."""
    known = type(x) in (Tensor, Parameter) and x.dtype == torch.float32 and x.is_cpu
    return known and x.layout == torch.strided and not x.is_nested and not is_dual(x)


def fitting(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN takes such shapes: nothing empty, and a bias without gaps, which it reads."""
    if x.dim() < 2 or weight.dim() != 2 or x.shape[-1] != weight.shape[1]:
        return False
    if bias is not None and not (dense(bias) and bias.shape == weight.shape[:1]):
        return False
    gaps = bias is not None and not bias.is_contiguous()
    return not gaps and x.numel() > 0 and len(weight) > 0


def is_dual(x: Tensor) -> bool:
    """Whether a derivative goes forward with it."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def many(q: Float[Tensor, "B H Q A"], mask: Bool[Tensor, "#B 1 #Q K"]) -> bool:
    """Whether ``attention`` is worthwhile: for many queries that all see the same keys."""
    quick = plain(q) and not torch.is_grad_enabled()
    return quick and q.shape[2] >= QUERIES and mask.shape[2] == 1


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
