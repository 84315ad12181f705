"""What a comparison measures: a row for each sub-step and gradient, a budget for each precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from parity.finite import first_not_finite
from parity.inputs import Ids
from parity.measures import (
    GRADIENT_BOUND,
    STEP_BOUND,
    Budget,
    allowed,
    largest,
    largest_difference,
    mask_of,
    worst,
)
from parity.sides import NUMPY, Side, Trace
from parity.substeps import LOGITS, in_words, substeps
from transformer_spec import TransformerConfig

NO_LOSS = "loss and gradients are not compared"
Traces = Sequence[tuple[Trace, Trace]]


def step_rows(a: Side, truths: Traces, batches: list[Ids]) -> list[dict]:
    """A row for every sub-step that both sides show, in the order in which they happen."""
    seen = set(truths[0][0]) & set(truths[0][1])
    steps = [step for step in substeps(a.config) if step in seen]
    rows = []
    for step in steps:
        difference = scale = 0.0
        for (one, other), ids in zip(truths, batches, strict=True):
            mask = mask_of(step, ids, a.config)
            difference = worst(difference, largest_difference(one[step], other[step], mask))
            scale = worst(scale, largest(one[step][mask]))
        rows.append(row_of(step, difference, scale, STEP_BOUND))
    return rows


def row_of(part: str, difference: float, scale: float, bound: float) -> dict[str, Any]:
    """``scale`` is the largest of A's numbers, ``bound`` what is allowed around 1."""
    most = allowed(bound, scale)
    return {
        "part": part,
        "float64": difference,
        "scale": scale,
        "bound": most,
        "passed": difference <= most,
        "errors": {"float64": difference},
    }


def gradient_rows(a: Side, b: Side, batches: list[Ids]) -> tuple[list[dict], list[str]]:
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


def not_computed(precision: str, a: Side, b: Side, runs: tuple[Trace, Trace]) -> list[str]:
    """A note for each side that does not compute in a precision that was asked for."""
    return [
        f"{precision} is left out for {label}: {side.what} does not compute in it"
        + (" module by module" if side.streamed else "")
        for label, side, run in zip("AB", (a, b), runs, strict=True)
        if not run
    ]


def precision_errors(
    precision: str,
    rows: list[dict],
    runs: tuple[Trace, Trace],
    truths: tuple[Trace, Trace],
    ids: Ids,
    config: TransformerConfig,
) -> dict[str, Any]:
    """Error of each side in one precision against its own float64; rows get the larger one.

    A side that cannot compute in that precision gives an empty trace and is left out.
    """
    able = [k for k in (0, 1) if runs[k]]
    if not able:
        return {}
    for row in rows:
        step = row["part"]
        if all(step in truths[k] for k in able):
            mask = mask_of(step, ids, config)
            errors = [largest_difference(runs[k][step], truths[k][step], mask) for k in able]
            row["errors"][precision] = float(np.max(errors))
    sides = {"ab"[k]: side_budget(runs[k], truths[k], ids, config) for k in able}
    most = float(np.max([side["max_abs"] for side in sides.values()]))
    honest = honest_range(precision, truths[able[0]][LOGITS][mask_of(LOGITS, ids, config)])
    return {precision: {**sides, "max_abs": most, "honest": honest}}


def side_budget(run: Trace, truth: Trace, ids: Ids, config: TransformerConfig) -> dict[str, Any]:
    """What a precision does to one side's logits; ``overflow`` is where its numbers end, if so."""
    budget, mask = Budget(), mask_of(LOGITS, ids, config)
    budget.add(run[LOGITS][mask], truth[LOGITS][mask])
    step = first_not_finite(run, ids, config)
    return budget.to_dict() | ({"overflow": in_words(step)} if step else {})


def honest_range(precision: str, logits: np.ndarray) -> list[float]:
    """Where rounding alone leaves logits: from a fraction of one rounding to some hundreds."""
    unit = float(ml_dtypes.finfo(NUMPY.get(precision, NUMPY["bfloat16"])).eps)
    return [unit / 16, 256 * unit * max(1.0, largest(logits))]


def agreement(truths: Traces, batches: list[Ids], config: TransformerConfig) -> dict[str, float]:
    """B's float64 logits beside A's."""
    budget = Budget()
    for (one, other), ids in zip(truths, batches, strict=True):
        mask = mask_of(LOGITS, ids, config)
        budget.add(other[LOGITS][mask], one[LOGITS][mask])
    return budget.to_dict()
