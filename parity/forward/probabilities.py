"""Probabilities where logits belong: rows that add up to 1, as they are or their exponentials."""

from __future__ import annotations

import numpy as np

from transformer_spec import UserError

# Rounding of a float64 sum of a row, in units of the last place of its largest number.
UNITS = 256.0


def made_of(logits: np.ndarray) -> str | None:
    """What made rows (B, T, V) of float64 numbers: ``log_softmax``, ``softmax`` or neither.

    Rows that hold NaN or infinite numbers, as padded ones may, are left out.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    rows = rows[np.isfinite(rows).all(1)]
    if rows.shape[1] < 2 or not len(rows):
        return None
    room = UNITS * np.finfo(np.float64).eps
    if (rows <= 0).all():
        sums = np.exp(rows).sum(1)
        near = abs(sums - 1) <= room * np.maximum(1.0, abs(rows).max())
        return "log_softmax" if near.all() else None
    inside = (rows >= 0).all() and (rows <= 1).all()
    return "softmax" if inside and (abs(rows.sum(1) - 1) <= room).all() else None


def check_logits_alone(given: str, logits: np.ndarray) -> None:
    """Probabilities or their logarithms are a UserError: they are told by their rows."""
    made = made_of(logits)
    if made is not None:
        what, which = {
            "log_softmax": ("log probabilities", "the exponentials of every row add up to 1"),
            "softmax": ("probabilities", "every row adds up to 1"),
        }[made]
        raise UserError(
            f"{given} returned {what}, where logits are compared: {which}; let it return what it "
            f"gives to {made}"
        )
