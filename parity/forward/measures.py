"""How far arrays are from others: largest difference, divergence, the best tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from parity.forward.substeps import LOGITS, OVER_FRAMES, over_source

if TYPE_CHECKING:
    from parity.forward.ids import Ids
    from transformer_spec import TransformerConfig

STEP_BOUND = 1e-11
GRADIENT_BOUND = 1e-10
# Of float32 logits beside their own float64, over their spread where that is above 1.
FLOAT32_BOUND = 2e-5
# This many times the size of others, in every row, are logits that a bias holds apart.
HELD_APART = 30.0


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


def differing(
    step: str, one: np.ndarray, other: np.ndarray, mask: np.ndarray
) -> tuple[float, float]:
    """Largest absolute difference of a sub-step over the rows in ``mask``, and their scale.

    NaN anywhere there gives NaN; a difference of other shapes is infinite. Logits that a bias holds
    apart count by their own size.
    """
    factors, scale = in_proportion(step, one[mask])
    if one.shape != other.shape:
        return math.inf, scale
    return largest((one[mask] - other[mask]) * factors), scale


def in_proportion(step: str, rows: np.ndarray) -> tuple[np.ndarray | float, float]:
    """What differences of a sub-step's columns count times, and its largest number.

    A bias of -1e9, which keeps a token from being written, would else allow every logit 1e-2. A
    token that is held apart so counts in proportion: as if its logits were of the others' size.
    """
    if step != LOGITS or not rows.size:
        return 1.0, largest(rows)
    sizes = np.abs(rows)
    most = sizes.max(0)
    apart = sizes.min(0) > _gap_above(most)
    if not apart.any():
        return 1.0, float(most.max())
    scale = float(most[~apart].max())
    return np.where(apart, np.minimum(1.0, max(1.0, scale) / most), 1.0), scale


def _gap_above(most: np.ndarray) -> float:
    """The size above which tokens are held apart, by each token's largest logit: infinite, or
    within the first gap between their sizes, however many tokens are beyond it.
    """
    sizes = np.sort(most)
    room = HELD_APART * np.maximum(1.0, sizes)
    gaps = np.flatnonzero(sizes[1:] > room[:-1])
    return float(room[gaps[0]]) if len(gaps) else math.inf


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
