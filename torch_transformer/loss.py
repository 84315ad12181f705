"""Label-smoothed cross entropy over chunks of tokens, the twin of flax_transformer/loss.py.

The projection to the vocabulary and the loss are one function: no array of batch x length x
vocabulary ever exists, and the gradients of a chunk are computed while its logits are there.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from torch_transformer.precision import factors
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
    zero = weight.new_zeros(weight.shape[0]) if bias is None else bias
    return _ChunkedLoss.apply(*factors(states, weight), zero, targets, pad_id, smoothing)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, bias, targets, pad_id, smoothing):
        wanted = any(ctx.needs_input_grad)
        loss = bias.new_zeros(())  # the bias is never rounded
        gradients = []
        if wanted:
            of_weight = torch.zeros_like(weight, dtype=bias.dtype)
            gradients = [torch.zeros_like(states), of_weight, torch.zeros_like(bias)]
        size = chunk_tokens(len(targets), len(bias))
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            chunk_loss, d_logits = _chunk(
                states[part], weight, bias, targets[part], pad_id, smoothing
            )
            loss += chunk_loss
            if wanted:
                low = d_logits.to(states.dtype)
                torch.mm(low, weight, out=gradients[0][part])
                _add_product(gradients[1], low.T, states[part])
                gradients[2] += d_logits.sum(0)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx, *upstream):
        return *(gradient * upstream[0] for gradient in ctx.saved_tensors), None, None, None


def _chunk(
    states: Float[Tensor, "n D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, "V"],
    targets: Int[Tensor, "n"],
    pad_id: int,
    smoothing: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, "n V"]]:
    """The summed loss of n tokens and its gradient by their logits."""
    V = len(bias)
    logits = _logits(states, weight, bias)  # (n, D) -> (n, V)
    real = (targets != pad_id).to(logits.dtype)
    log_sum = logits.logsumexp(1)
    right = logits.gather(1, targets[:, None])[:, 0]
    losses = log_sum - (1 - smoothing) * right - smoothing / V * logits.sum(1)
    d_logits = logits.sub_(log_sum[:, None]).exp_()
    d_logits -= smoothing / V
    d_logits.scatter_add_(1, targets[:, None], d_logits.new_full((len(targets), 1), smoothing - 1))
    return (losses * real).sum(), d_logits.mul_(real[:, None])


def _logits(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if states.dtype == bias.dtype:
        return torch.addmm(bias, states, weight.T)
    return torch.mm(states, weight.T).to(bias.dtype).add_(bias)


def _add_product(sums: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == sums.dtype:
        sums.addmm_(left, right)
    else:
        sums += left @ right
