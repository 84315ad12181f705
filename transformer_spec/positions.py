"""Positions of tokens: sinusoids and buckets of distances are computed here and nowhere else."""

import functools
import math

import numpy as np
from numpy.typing import DTypeLike

from transformer_spec.config import TransformerConfig
from transformer_spec.errors import UserError
from transformer_spec.memory import check_memory

TABLE_COPIES = 3  # angles, sines and cosines, and the table


def sinusoid_table(config: TransformerConfig, dtype: DTypeLike = np.float32) -> np.ndarray:
    """The table (rows, D) of Vaswani et al. 2017, section 3.5, for the half with more positions.

    Computed in float64 and rounded once. Frequency ``2i/d`` is the paper's; ``i/(d/2-1)`` is
    tensor2tensor's, which leaves the last column of an odd width at zero. A UserError where memory
    does not suffice.
    """
    check_table(config)
    rows, D = _most_rows(config), config.hidden_dim
    angles = np.arange(rows, dtype=np.float64)[:, None] * _frequencies(config)
    sines = D - D // 2 if config.sinusoid_frequency == "2i/d" else D // 2
    sine, cosine = np.sin(angles[:, :sines]), np.cos(angles[:, : D // 2])
    table = np.zeros((rows, D))
    if config.sinusoid_layout == "interleaved":
        table[:, 0 : 2 * sines : 2], table[:, 1 : 2 * (D // 2) : 2] = sine, cosine
    else:
        table[:, :sines], table[:, sines : sines + D // 2] = sine, cosine
    return table.astype(dtype)


def _frequencies(config: TransformerConfig) -> np.ndarray:
    D = config.hidden_dim
    pair = np.arange((D + 1) // 2, dtype=np.float64)
    exponent = 2 * pair / D if config.sinusoid_frequency == "2i/d" else pair / (D // 2 - 1)
    return 10000.0**-exponent


def check_table(config: TransformerConfig) -> None:
    """Raise a UserError where memory does not suffice for the sinusoid table of a config."""
    rows = _most_rows(config)
    what = f"a table of {rows:,} positions (max_length, position_offset)"
    needed = TABLE_COPIES * 8 * rows * config.hidden_dim
    check_memory(needed, what, "give a smaller max_length")


def position_rows(config: TransformerConfig, half: str) -> int:
    """Rows of a half's position table: the offset's unused rows come before the first token's."""
    return config.longest(half) + config.position_offset


def _most_rows(config: TransformerConfig) -> int:
    return max(position_rows(config, half) for half in ("encoder", "decoder"))


def convolved(frames: int) -> int:
    """Positions S behind the two convolutions of so many frames: every other one, from the first.

    Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2.
    """
    return (frames + 1) // 2


def source_positions(shape: tuple[int, ...], config: TransformerConfig) -> int:
    """Positions S of a source of tokens (B, S) or features (B, W, M)."""
    return convolved(shape[1]) if config.feature_dim else shape[1]


def check_length(tokens: int, config: TransformerConfig, half: str = "decoder") -> None:
    """Raise a UserError where a sequence has more tokens than a half has positions."""
    longest, name = config.longest(half), "max_length"
    if tokens <= longest:
        return
    if half == "encoder" and longest != config.max_length:
        name = "max_source_length"
    if half == "encoder" and config.feature_dim:
        raise UserError(
            f"a source of {tokens} positions behind the convolutions is longer than the model's "
            f"{name} {longest}; give at most {2 * longest} frames"
        )
    raise UserError(
        f"a sequence of {tokens} tokens is longer than the model's {name} "
        f"{longest}; shorten it or use a model with a larger {name}"
    )


@functools.lru_cache(maxsize=8)
def relative_buckets(config: TransformerConfig, half: str) -> np.ndarray:
    """The bucket (2 * longest - 1,) of every distance, key minus query, the smallest first.

    Distance 0 stands at the ``half``'s longest - 1. Near keys have a bucket for each distance, far
    ones share one up to logarithmically growing distances (Raffel et al. 2020, section 2.1). The
    ``encoder`` uses half of the buckets for keys to the right; the ``decoder`` sees none, and has
    them at bucket 0. Logarithms are taken in float32, as where such models were trained.
    """
    relative = np.arange(1 - config.longest(half), config.longest(half))
    buckets, base = config.relative_buckets, np.zeros_like(relative)
    if half == "encoder":
        buckets //= 2
        base = np.where(relative > 0, buckets, 0)
        distance = np.abs(relative)
    else:
        distance = np.maximum(-relative, 0)
    exact = buckets // 2
    growth = np.float32(math.log(config.relative_max_distance / exact))
    ratio = np.log(np.maximum(distance, exact).astype(np.float32) / np.float32(exact)) / growth
    far = exact + (ratio * np.float32(buckets - exact)).astype(np.int64)  # cut towards zero
    return base + np.where(distance < exact, distance, np.minimum(far, buckets - 1))
