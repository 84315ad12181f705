"""Largest differences of logits in float64, of every family and direction."""

from collections.abc import Iterable

import numpy as np

LOGIT_BOUND = 1e-11
# (family, direction, largest difference) of every comparison: conftest prints them as a table.
MEASURED: list[tuple[str, str, float]] = []


def max_difference(logits: Iterable[np.ndarray], expected: np.ndarray, real: np.ndarray) -> float:
    return max(float(np.abs(found - expected)[real].max()) for found in logits)


def assert_measured(family: str, direction: str, difference: float) -> float:
    """A difference of logits within the bound, kept for the table."""
    assert difference <= LOGIT_BOUND, difference
    MEASURED.append((family, direction, difference))
    return difference
