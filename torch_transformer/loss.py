"""Label-smoothed cross entropy over chunks of tokens, the twin of flax_transformer/loss.py.

The projection to the vocabulary and the loss are one function: no array of batch x length x
vocabulary ever exists, and the gradients of a chunk are computed while its logits are there.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torch_transformer.precision import factors, wide
from torch_transformer.products import add_transposed, linear, times, transposed_zeros, watched
from transformer_spec.chunks import chunk_tokens


def smoothed_cross_entropy(
    states: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "N"],
    pad_id: int,
    smoothing: float,
) -> Float[Tensor, ""]:
    """Sum over real targets of (1-e) * -log p(target) + e/V * sum of -log p(v) over all v.

    Label smoothing as in Szegedy et al. 2016, section 7, with the uniform prior over all V words.
    """
    wanted = torch.is_grad_enabled()  # never so inside of forward
    return _ChunkedLoss.apply(*factors(states, weight), bias, targets, pad_id, smoothing, wanted)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, bias, targets, pad_id, smoothing, wanted):
        wanted = wanted and any(ctx.needs_input_grad)
        given, real = len(states), _real_rows(targets, pad_id)
        if real is not None:
            states, targets = states[real], targets[real]
        dtype = wide(weight.dtype)  # of sums, and of the bias, which is never rounded
        loss, weight_sum = weight.new_zeros((), dtype=dtype), weight.sum(0, dtype=dtype)
        d_states = torch.zeros_like(states) if wanted else None
        d_weight = transposed_zeros(weight, dtype) if wanted else None
        d_bias = torch.zeros_like(bias) if wanted and bias is not None else None
        size = chunk_tokens(len(targets), len(weight))
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            chunk_loss, d_logits = _chunk(
                states[part], weight, weight_sum, bias, targets[part], pad_id, smoothing
            )
            loss += chunk_loss
            if d_states is not None and d_weight is not None:
                low = d_logits.to(states.dtype)
                d_states[part] = times(low, weight)
                add_transposed(d_weight, low, states[part])
            if d_bias is not None:
                d_bias += d_logits.sum(0)
        if d_states is not None and real is not None:
            d_states = states.new_zeros(given, states.shape[1]).index_copy_(0, real, d_states)
        ctx.save_for_backward(d_states, d_weight, d_bias)
        return loss

    @staticmethod
    def backward(ctx, *upstream):
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "create_graph: smoothed_cross_entropy has no gradient of its gradient"
            )
        scaled = (None if kept is None else kept * upstream[0] for kept in ctx.saved_tensors)
        return *scaled, None, None, None, None


def _real_rows(targets: Int[Tensor, "N"], pad_id: int) -> Int[Tensor, "n"] | None:
    """Which rows count, where leaving out others saves time; an accelerator would wait for it."""
    if torch.compiler.is_compiling() or watched() or not targets.is_cpu:
        return None
    real = targets != pad_id
    rows = real.nonzero()[:, 0]
    return rows if 0 < len(rows) < len(real) else None


def _chunk(
    states: Float[Tensor, "n D"],
    weight: Float[Tensor, "V D"],
    weight_sum: Float[Tensor, "D"],
    bias: Float[Tensor, "V"] | None,
    targets: Int[Tensor, "n"],
    pad_id: int,
    smoothing: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n V"]]:
    """The summed loss of n tokens and its gradient by their logits."""
    V = len(weight)
    logits = _logits(states, weight, bias, weight_sum.dtype)  # (n, D) -> (n, V)
    logits_sum = (states * weight_sum).sum(1) + (0 if bias is None else bias.sum())
    real = (targets != pad_id).to(logits.dtype)
    right = logits.gather(1, targets[:, None])[:, 0]
    largest = logits.amax(1, keepdim=True)
    exponentials = logits.sub_(largest).exp_()
    total = exponentials.sum(1)
    losses = largest[:, 0] + total.log() - (1 - smoothing) * right - smoothing / V * logits_sum
    d_logits = exponentials.mul_((real / total)[:, None])
    d_logits -= (smoothing / V * real)[:, None]
    d_logits.scatter_add_(1, targets[:, None], ((smoothing - 1) * real)[:, None])
    return (losses * real).sum(), d_logits


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    if states.dtype == dtype:
        return linear(states, weight, bias)
    logits = torch.mm(states, weight.T).to(dtype)
    return logits if bias is None else logits.add_(bias)
