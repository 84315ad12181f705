"""Attention as it is fastest on processors, and JAX's own elsewhere.

Keys that are kept lie transposed, (A, K): few queries by many keys multiply 1.5 to 2.2 times as
fast (docs/log.md). ``transposed`` is how they are laid down and how they are taken up again; of two
in a row XLA does neither.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from flax_transformer.cpu.gradients import softmax
from flax_transformer.precision import wide

QUERIES = 512  # from so many on, a head at a time is faster


def transposed(keys: Float[Array, "B H X Y"]) -> Float[Array, "B H Y X"]:
    """Keys (B, H, K, A) as they are kept, (B, H, A, K), and back."""
    return keys.swapaxes(2, 3)


def attend(
    q: Float[Array, "B H Q A"],
    k: Float[Array, "B H K A"],
    v: Float[Array, "B H K A"],
    mask: Bool[Array, "#B 1 #Q K"],
    scale: float,
    bias: Float[Array, "1 H Q K"] | None = None,
    by_head: bool = False,
) -> Float[Array, "B H Q A"]:
    """Scaled dot-product attention; every query sees at least one key, and scores get a bias.

    ``by_head``: a processor may do it a head at a time, where those are of many queries.
    """
    if q.dtype == jnp.float64:  # JAX's own takes the softmax in float32 whatever it is given
        return _written_out(q, k, v, mask, scale, bias)

    def on(form: Callable[..., Array]) -> Callable[..., Array]:
        return lambda q, k, v, mask, bias: form(q, k, v, mask, scale, bias)

    many = by_head and bias is None and mask.shape[2] == 1 and q.shape[2] >= QUERIES
    forms = {"cpu": on(_one_by_one if many else _written_out), "default": on(_own)}
    return jax.lax.platform_dependent(q, k, v, mask, bias, **forms)


def _written_out(
    q: Array, k: Array, v: Array, mask: Array, scale: float, bias: Array | None = None
) -> Array:
    return weighted(probabilities(q, k, mask, scale, bias), v)


def _one_by_one(
    q: Array, k: Array, v: Array, mask: Array, scale: float, bias: Array | None = None
) -> Array:
    """The scores of one head stay in a processor's cache, of all heads they do not."""
    B, H, Q, _ = q.shape
    mask = jnp.broadcast_to(mask, (B, H, 1, mask.shape[3]))

    def of_head(given: tuple[Array, ...]) -> Array:
        q, k, v, mask = given
        return _written_out(q, k, v, mask, scale)

    heads = tuple(x.reshape(B * H, 1, 1, *x.shape[2:]) for x in (q, k, v, mask))
    return jax.lax.map(of_head, heads).reshape(B, H, Q, -1)


def _own(
    q: Array, k: Array, v: Array, mask: Array, scale: float, bias: Array | None = None
) -> Array:
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))  # (B, H, K, A) -> (B, K, H, A)
    return jax.nn.dot_product_attention(q, k, v, bias, mask, scale=scale).swapaxes(1, 2)


def probabilities(
    q: Float[Array, "B H Q A"],
    k: Float[Array, "B H K A"],
    mask: Bool[Array, "#B 1 #Q K"],
    scale: float,
    bias: Float[Array, "1 H Q K"] | None = None,
) -> Float[Array, "B H Q K"]:
    """How much each query takes of each key's value, in the number format of sums."""
    scores = jnp.einsum("bhqa,bhak->bhqk", q * scale, transposed(k)).astype(wide(q.dtype))
    scores = scores if bias is None else scores + bias
    return softmax(jnp.where(mask, scores, jnp.finfo(q.dtype).min))


def weighted(
    probabilities: Float[Array, "B H Q K"], v: Float[Array, "B H K A"]
) -> Float[Array, "B H Q A"]:
    """The values that each query takes, summed."""
    return jnp.einsum("bhqk,bhka->bhqa", probabilities.astype(v.dtype), v)
