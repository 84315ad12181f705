"""Sinusoid tables in float32, as modules keep them in a buffer whatever format they compute in.

A table that was computed in float64 and rounded has one form; one that was computed in float32 has
as many as there are orders in which its formula can be written.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from parity.mutations.structure import FLOAT32_SINUSOIDS
from transformer_spec import TransformerConfig, position_rows, sinusoid_table

Frequencies = Callable[[Tensor, float], Tensor]
BASE = 10000.0


def rounded_table(config: TransformerConfig, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The right table, rounded."""
    return torch.as_tensor(sinusoid_table(config), dtype=dtype, device=device)


def divided_table(config: TransformerConfig, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Angles as quotients of float32 numbers."""
    positions, even, width = _parts(config)
    return _table(config, positions / torch.pow(BASE, even / width)).to(device, dtype)


def multiplied_table(
    frequencies: Frequencies, config: TransformerConfig, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Angles as products of float32 numbers."""
    positions, even, width = _parts(config)
    return _table(config, positions * frequencies(even, width)).to(device, dtype)


def _parts(config: TransformerConfig) -> tuple[Tensor, Tensor, float]:
    """Positions (rows, 1), the numerators of the exponents, and their denominator."""
    rows = max(position_rows(config, half) for half in ("encoder", "decoder"))
    positions = torch.arange(rows, dtype=torch.float32)[:, None]
    pairs, D = torch.arange((config.hidden_dim + 1) // 2, dtype=torch.float32), config.hidden_dim
    if config.sinusoid_frequency == "2i/d":
        return positions, 2 * pairs, D
    return positions, pairs, D // 2 - 1


def _table(config: TransformerConfig, angles: Tensor) -> Tensor:
    """Sines and cosines of angles (rows, pairs) where a config has them, float32."""
    D = config.hidden_dim
    sines = D - D // 2 if config.sinusoid_frequency == "2i/d" else D // 2
    sine, cosine = torch.sin(angles[:, :sines]), torch.cos(angles[:, : D // 2])
    table = torch.zeros(len(angles), D)
    if config.sinusoid_layout == "interleaved":
        table[:, 0 : 2 * sines : 2], table[:, 1 : 2 * (D // 2) : 2] = sine, cosine
    else:
        table[:, :sines], table[:, sines : sines + D // 2] = sine, cosine
    return table


FREQUENCIES: tuple[Frequencies, ...] = (
    lambda e, d: torch.exp(e * (-math.log(BASE) / d)),
    lambda e, d: torch.exp(-e * math.log(BASE) / d),
    lambda e, d: 1.0 / torch.pow(BASE, e / d),
)
MULTIPLIED = (functools.partial(multiplied_table, formula) for formula in FREQUENCIES)
TABLES = dict(zip(FLOAT32_SINUSOIDS, (rounded_table, divided_table, *MULTIPLIED), strict=True))
