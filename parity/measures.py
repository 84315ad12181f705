"""How far logits are from others: largest difference, divergence, agreement of the best tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from parity.substeps import over_source

if TYPE_CHECKING:
    from parity.inputs import Ids
    from transformer_spec import TransformerConfig

STEP_BOUND = 1e-11
GRADIENT_BOUND = 1e-10


def allowed(bound: float, scale: float) -> float:
    """Bounds are for numbers around 1; larger ones are rounded in proportion."""
    return bound * max(1.0, scale) if math.isfinite(scale) else bound


def largest(array: np.ndarray) -> float:
    """Largest absolute value; NaN anywhere gives NaN, which no bound accepts."""
    return float(np.max(np.abs(array))) if array.size else 0.0


def worst(a: float, b: float) -> float:
    """The larger; NaN wins."""
    return float(np.maximum(a, b))


def mask_of(step: str, ids: Ids, config: TransformerConfig) -> np.ndarray:
    """The real positions (B, S) or (B, T) of a sub-step's rows."""
    source, target = ids.real(config)
    return source if over_source(step) else target


def largest_difference(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:
    """Largest absolute difference over the rows in ``mask``; NaN anywhere there gives NaN."""
    return largest(one[mask] - other[mask])


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


class Budget:
    """Differences of logits (N, V) from true ones, collected over batches."""

    def __init__(self) -> None:
        self.max_abs = self.largest = self.max_kl = 0.0
        self.kl_sum, self.rows, self.top1, self.top5 = 0.0, 0, 0, 0

    def add(self, logits: np.ndarray, truth: np.ndarray) -> None:
        difference = np.abs(logits - truth)
        self.max_abs = float(np.maximum(self.max_abs, difference.max()))
        self.largest = float(np.maximum(self.largest, np.abs(truth).max()))
        kl = divergence(truth, logits)
        self.max_kl = float(np.maximum(self.max_kl, kl.max()))
        self.kl_sum += float(kl.sum())
        self.rows += len(truth)
        self.top1 += int((top(logits, 1) == top(truth, 1)).all(-1).sum())
        five, true_five = np.sort(top(logits, 5)), np.sort(top(truth, 5))
        self.top5 += int((five == true_five).all(-1).sum())

    def to_dict(self) -> dict[str, float]:
        return {
            "max_abs": self.max_abs,
            "relative": self.max_abs / self.largest if self.largest else 0.0,
            "max_kl": self.max_kl,
            "mean_kl": self.kl_sum / self.rows if self.rows else 0.0,
            "top1": self.top1 / self.rows if self.rows else 1.0,
            "top5": self.top5 / self.rows if self.rows else 1.0,
        }
