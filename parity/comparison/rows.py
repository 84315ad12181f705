"""The rows of a comparison: every sub-step, the loss and every gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parity.comparison.report import Row
from parity.forward.ids import Ids
from parity.forward.measures import (
    GRADIENT_BOUND,
    STEP_BOUND,
    allowed,
    differing,
    largest,
    mask_of,
    worst,
)
from parity.forward.substeps import LOGITS, substeps
from parity.sides.side import Side, Trace

NO_LOSS = "loss and gradients are not compared"
Traces = Sequence[tuple[Trace, Trace]]


def step_rows(a: Side, truths: Traces, batches: list[Ids]) -> list[Row]:
    """A row for every sub-step that both sides show, in the order in which they happen."""
    seen = set(truths[0][0]) & set(truths[0][1])
    rows = []
    for step in (step for step in substeps(a.config) if step in seen):
        difference = scale = 0.0
        for (one, other), ids in zip(truths, batches, strict=True):
            mask = mask_of(step, ids, a.config)
            apart, size = differing(step, one[step], other[step], mask)
            difference, scale = worst(difference, apart), worst(scale, size)
        rows.append(row_of(step, difference, scale, STEP_BOUND))
    return rows


def row_of(part: str, difference: float, scale: float, bound: float) -> Row:
    """``scale`` is the largest of A's numbers, ``bound`` what is allowed around 1."""
    return Row(part, difference, allowed(bound, scale), scale)


def gradient_rows(a: Side, b: Side, batches: list[Ids]) -> tuple[list[Row], list[str]]:
    """The loss and each gradient that both sides give, or a note why there are none.

    Of the first batch in which a token counts: without any, the mean loss is not defined.
    """
    ids = next((ids for ids in batches if all(ids.for_loss(s.config)[2] for s in (a, b))), None)
    if ids is None:
        return [], [f"{NO_LOSS}: no target has a token after its first"]
    sides = {"A": a, "B": b}
    found = {label: side.gradients(ids) for label, side in sides.items()}
    without = [f"{label} ({sides[label].what})" for label, what in found.items() if what is None]
    if without:
        verb = "gives" if len(without) == 1 else "give"
        return [], [f"{NO_LOSS}: {' and '.join(without)} {verb} none"]
    (loss, one), (other_loss, other) = (what for what in found.values() if what is not None)
    rows = [row_of("loss", abs(loss - other_loss), abs(loss), GRADIENT_BOUND)]
    left_out = a.untrained_rows() | b.untrained_rows()
    for name in (name for name in one if name in other):
        both, what = (one[name], other[name]), f"gradient of {name}"
        if name in left_out:
            both = tuple(np.delete(gradient, left_out[name], 0) for gradient in both)
            what += f" but row {left_out[name]}"
        rows.append(row_of(what, largest(both[0] - both[1]), largest(both[0]), GRADIENT_BOUND))
    return rows, []


def unseen(a: Side, b: Side, truths: Traces) -> list[str]:
    """A note for each side that shows its logits alone."""
    shown = zip("AB", (a, b), truths[0], strict=True)
    return [
        f"sub-steps are not compared: of {label} ({side.what}) only the logits are seen"
        for label, side, trace in shown
        if set(trace) == {LOGITS}
    ]
