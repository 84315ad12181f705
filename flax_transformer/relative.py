"""Relative positions in JAX, line for line the twin of torch_transformer/relative.py.

A head adds to the score of a query and a key a number that depends on their distance alone, that is
the key's column minus the query's. A learned table has a row for each bucket of distances (Raffel
et al. 2020, section 2.1).

Letters: H num_heads, R relative_buckets, Q query columns, K key columns, N cells of a column.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from transformer_spec import TransformerConfig, relative_buckets


class Distances(NamedTuple):
    """The buckets of Q + K - 1 distances, from the last query's to the first key upwards."""

    buckets: Int[Array, " L"]
    queries: int
    cells: int


# What is added to the scores of all heads (1, H, Q x N, K x N), or what a layer makes it of.
Bias = Float[Array, "1 H Q K"] | Distances | None


def distances(
    config: TransformerConfig, half: str, first: int | Int[Array, ""], Q: int, K: int, cells: int
) -> Distances:
    """How far K columns are from Q queries, which begin at column ``first``."""
    start = config.longest(half) - first - Q
    buckets = jnp.asarray(relative_buckets(config, half), jnp.int32)
    return Distances(jax.lax.dynamic_slice(buckets, (start,), (Q + K - 1,)), Q, cells)


def relative_bias(table: Float[Array, "R H"], found: Distances) -> Float[Array, "1 H Q K"]:
    """The number of each head for each query and key; N cells of a column have the same."""
    Q, L = found.queries, len(found.buckets)
    each = jnp.pad(table[found.buckets].T, ((0, 0), (0, 1)))  # (H, L + 1)
    # Row q is the numbers from Q-1-q on: rows one longer than what is taken of them shift by one.
    rows = jnp.tile(each, (1, Q))[:, Q - 1 : Q - 1 + Q * L].reshape(-1, Q, L)
    bias = rows[None, :, :, : L + 1 - Q]
    if found.cells == 1:
        return bias
    return bias.repeat(found.cells, 2).repeat(found.cells, 3)
