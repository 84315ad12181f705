"""How far arrays are from others: largest difference, divergence, the best tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from parity.forward.substeps import OVER_FRAMES, over_source

if TYPE_CHECKING:
    from parity.forward.ids import Ids
    from transformer_spec import TransformerConfig

STEP_BOUND = 1e-11
GRADIENT_BOUND = 1e-10
# Of float32 logits beside their own float64, over their spread where that is above 1.
FLOAT32_BOUND = 2e-5


def allowed(bound: float, scale: float) -> float:
    """Bounds are for numbers around 1; larger ones are rounded in proportion."""
    return bound * max(1.0, scale) if math.isfinite(scale) else bound


def over_spread(error: float, spread: float) -> float:
    """An error of logits over their standard deviation; one below 1 makes no error larger."""
    return error / max(1.0, spread)


def largest(array: np.ndarray) -> float:
    """Largest absolute value; NaN anywhere gives NaN, which no bound accepts."""
    return float(np.max(np.abs(array))) if array.size else 0.0


def worst(a: float, b: float) -> float:
    """The larger; NaN wins."""
    return float(np.maximum(a, b))


def mask_of(step: str, ids: Ids, config: TransformerConfig) -> np.ndarray:
    """The real positions (B, S) or (B, T) of a sub-step's rows; of frames, all rows (B,)."""
    if step in OVER_FRAMES:
        return np.ones(len(ids.source), bool)
    source, target = ids.real(config)
    return source if over_source(step) else target


def largest_difference(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:
    """Largest absolute difference over the rows in ``mask``; NaN anywhere there gives NaN.

    That of other shapes is infinite.
    """
    return largest(one[mask] - other[mask]) if one.shape == other.shape else math.inf


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def divergence(truth: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of each row's distribution from the true one, in nats."""
    right, found = log_softmax(truth), log_softmax(logits)
    return (np.exp(right) * (right - found)).sum(-1)


def top(logits: np.ndarray, count: int) -> np.ndarray:
    """The best tokens of each row, best first."""
    return np.argsort(-logits, axis=-1, kind="stable")[..., :count]
