"""Relative positions in PyTorch, line for line the twin of flax_transformer/relative.py.

A head adds to the score of a query and a key a number that depends on their distance alone, that is
the key's column minus the query's. A learned table has a row for each bucket of distances (Raffel
et al. 2020, section 2.1).

Letters: H num_heads, R relative_buckets, Q query columns, K key columns, N cells of a column.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from transformer_spec import TransformerConfig, relative_buckets


class Distances(NamedTuple):
    """The buckets of Q + K - 1 distances, from the last query's to the first key upwards."""

    buckets: Int[Tensor, " L"]
    queries: int
    cells: int


# What is added to the scores of all heads (1, H, Q x N, K x N), or what a layer makes it of.
Bias = Float[Tensor, "1 H Q K"] | Distances | None


def distances(
    config: TransformerConfig,
    half: str,
    first: int,
    Q: int,
    K: int,
    cells: int,
    device: torch.device,
) -> Distances:
    """How far K columns are from Q queries, which begin at column ``first``."""
    start = config.longest(half) - first - Q
    buckets = torch.as_tensor(relative_buckets(config, half), device=device)
    return Distances(buckets[start : start + Q + K - 1], Q, cells)


def relative_bias(table: Float[Tensor, "R H"], found: Distances) -> Float[Tensor, "1 H Q K"]:
    """The number of each head for each query and key; N cells of a column have the same."""
    Q, L = found.queries, found.buckets.shape[0]
    each = F.pad(table[found.buckets].T, (0, 1))  # (H, L + 1)
    # Row q is the numbers from Q-1-q on: rows one longer than what is taken of them shift by one.
    rows = each.repeat(1, Q)[:, Q - 1 : Q - 1 + Q * L].reshape(-1, Q, L)
    bias = rows[None, :, :, : L + 1 - Q]
    if found.cells == 1:
        return bias
    return bias.repeat_interleave(found.cells, 2).repeat_interleave(found.cells, 3)
