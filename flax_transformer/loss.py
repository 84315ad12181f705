"""Label-smoothed cross entropy over chunks of tokens, the twin of torch_transformer/loss.py.

The projection to the vocabulary and the loss are one function: no array of batch x length x
vocabulary ever exists, and the gradients of a chunk are computed while its logits are there.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from flax_transformer.cpu.products import summed
from flax_transformer.precision import factors, full_precision, wide
from transformer_spec.chunks import chunk_tokens


@full_precision
def smoothed_cross_entropy(
    states: Float[Array, "N D"],
    weight: Float[Array, "V D"],
    bias: Float[Array, "V"] | None,
    targets: Int[Array, "N"],
    pad_id: int,
    smoothing: float,
) -> Float[Array, ""]:
    """Sum over real targets of (1-e) * -log p(target) + e/V * sum of -log p(v) over all v.

    Label smoothing as in Szegedy et al. 2016, section 7, with the uniform prior over all V words.
    """
    return _chunked_loss(*factors(states, weight), bias, targets, pad_id, smoothing)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _chunked_loss(states, weight, bias, targets, pad_id, smoothing):
    return _forward(states, weight, bias, targets, pad_id, smoothing)[0]


def _forward(states, weight, bias, targets, pad_id, smoothing):
    dtype = wide(weight.dtype)  # of sums, and of the bias, which is never rounded
    weight_sum = weight.sum(0, dtype=dtype)
    size = chunk_tokens(len(targets), len(weight))
    parts = _split(states, size, 0), _split(targets, size, pad_id)

    def add_chunk(sums, part):
        loss, d_logits = _chunk(part[0], weight, weight_sum, bias, part[1], pad_id, smoothing)
        low = d_logits.astype(states.dtype)
        rows = part[0].T
        if bias is not None:
            rows = jnp.concatenate([rows, jnp.ones((1, size), rows.dtype)])
        added = loss, summed(jax.lax.optimization_barrier(rows), low)
        return jax.tree.map(jnp.add, sums, added), summed(low, weight).astype(low.dtype)

    D = states.shape[1]
    zeros = jnp.zeros((), dtype), jnp.zeros((D + (bias is not None), len(weight)), dtype)
    (loss, d_both), d_states = jax.lax.scan(add_chunk, zeros, parts)
    d_weight, d_bias = d_both[:D].T, None if bias is None else d_both[D]
    d_states = d_states.reshape(-1, states.shape[1])[: len(states)]
    return loss, (d_states, d_weight.astype(weight.dtype), d_bias)


def _backward(pad_id, smoothing, gradients, upstream):
    return *jax.tree.map(lambda kept: (kept * upstream).astype(kept.dtype), gradients), None


def _split(x: Array, size: int, filler: int) -> Array:
    """(N, ...) -> (chunks, size, ...), the last chunk filled up with ``filler``."""
    missing = -len(x) % size
    padded = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), constant_values=filler)
    return padded.reshape(-1, size, *x.shape[1:])


def _chunk(
    states: Float[Array, "n D"],
    weight: Float[Array, "V D"],
    weight_sum: Float[Array, "D"],
    bias: Float[Array, "V"] | None,
    targets: Int[Array, "n"],
    pad_id: int,
    smoothing: float,
) -> tuple[Float[Array, ""], Float[Array, "n V"]]:
    """The summed loss of n tokens and its gradient by their logits."""
    V = len(weight)
    logits = _logits(states, weight, bias)  # (n, D) -> (n, V)
    logits_sum = (states * weight_sum).sum(1) + (0 if bias is None else bias.sum())
    real = (targets != pad_id).astype(logits.dtype)
    right = jnp.take_along_axis(logits, targets[:, None], 1)[:, 0]
    largest = logits.max(1, keepdims=True)
    exponentials = jnp.exp(logits - largest)
    total = exponentials.sum(1)
    losses = largest[:, 0] + jnp.log(total) - (1 - smoothing) * right - smoothing / V * logits_sum
    d_logits = exponentials * (real / total)[:, None]
    d_logits -= (smoothing / V * real)[:, None]
    d_logits -= ((1 - smoothing) * real)[:, None] * jax.nn.one_hot(targets, V, dtype=logits.dtype)
    return (losses * real).sum(), d_logits


def _logits(states: Array, weight: Array, bias: Array | None) -> Array:
    logits = summed(states, weight, 1)
    return logits if bias is None else logits + bias


_chunked_loss.defvjp(_forward, _backward)
