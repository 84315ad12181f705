"""Label-smoothed cross entropy over chunks of tokens, the twin of torch_transformer/loss.py.

The projection to the vocabulary and the loss are one function: no array of batch x length x
vocabulary ever exists, and the gradients of a chunk are computed while its logits are there.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from flax_transformer.precision import factors, full_precision
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
    zero = jnp.zeros(weight.shape[0], weight.dtype) if bias is None else bias
    return _chunked_loss(*factors(states, weight), zero, targets, pad_id, smoothing)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _chunked_loss(states, weight, bias, targets, pad_id, smoothing):
    return _forward(states, weight, bias, targets, pad_id, smoothing)[0]


def _forward(states, weight, bias, targets, pad_id, smoothing):
    size = chunk_tokens(len(targets), len(bias))
    parts = _split(states, size, 0), _split(targets, size, pad_id)

    def add_chunk(sums, part):
        loss, d_logits = _chunk(part[0], weight, bias, part[1], pad_id, smoothing)
        low = d_logits.astype(states.dtype)
        added = loss, _product(low.T, part[0], sums_dtype), d_logits.sum(0)
        return jax.tree.map(jnp.add, sums, added), low @ weight

    sums_dtype = bias.dtype  # the bias is never rounded
    zeros = jnp.zeros((), sums_dtype), jnp.zeros(weight.shape, sums_dtype), jnp.zeros_like(bias)
    (loss, d_weight, d_bias), d_states = jax.lax.scan(add_chunk, zeros, parts)
    d_states = d_states.reshape(-1, states.shape[1])[: len(states)]
    return loss, (d_states, d_weight.astype(weight.dtype), d_bias)


def _backward(pad_id, smoothing, gradients, upstream):
    return *((gradient * upstream).astype(gradient.dtype) for gradient in gradients), None


def _product(left: Array, right: Array, dtype: jnp.dtype) -> Array:
    return jnp.matmul(left, right, preferred_element_type=dtype)


def _split(x: Array, size: int, filler: int) -> Array:
    """(N, ...) -> (chunks, size, ...), the last chunk filled up with ``filler``."""
    missing = -len(x) % size
    padded = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), constant_values=filler)
    return padded.reshape(-1, size, *x.shape[1:])


def _chunk(
    states: Float[Array, "n D"],
    weight: Float[Array, "V D"],
    bias: Float[Array, "V"],
    targets: Int[Array, "n"],
    pad_id: int,
    smoothing: float,
) -> tuple[Float[Array, ""], Float[Array, "n V"]]:
    """The summed loss of n tokens and its gradient by their logits."""
    V = len(bias)
    logits = _product(states, weight.T, bias.dtype) + bias  # (n, D) -> (n, V)
    real = (targets != pad_id).astype(logits.dtype)
    log_sum = jax.nn.logsumexp(logits, 1)
    right = jnp.take_along_axis(logits, targets[:, None], 1)[:, 0]
    losses = log_sum - (1 - smoothing) * right - smoothing / V * logits.sum(1)
    d_logits = jnp.exp(logits - log_sum[:, None])
    d_logits -= smoothing / V
    d_logits -= (1 - smoothing) * jax.nn.one_hot(targets, V, dtype=logits.dtype)
    return (losses * real).sum(), d_logits * real[:, None]


_chunked_loss.defvjp(_forward, _backward)
