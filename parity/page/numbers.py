"""Numbers as readers see them."""

import math
from collections.abc import Sequence


def number(value: float, digits: int = 1) -> str:
    """``3.1e-16``; zero is ``0``, and what is no finite number ``NaN`` or ``inf``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf"
    return f"{value:.{digits}e}" if value else "0"


def exact(value: float) -> str:
    """All digits that tell a float64 from its neighbours."""
    return f"{value:.17g}" if math.isfinite(value) else number(value)


def share(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.2%}"


def shape(sizes: Sequence[int]) -> str:
    """``6 × 9 × 12``; one number has no sizes."""
    return " × ".join(f"{size:,}" for size in sizes) or "1"
