"""What a number format does to the logits and sub-steps of each side, beside its own float64."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import ml_dtypes
import numpy as np

from parity.comparison.finite import first_not_finite
from parity.comparison.report import Agreement, Rounding, Row
from parity.comparison.rows import Traces
from parity.forward.ids import Ids
from parity.forward.measures import differing, divergence, in_proportion, largest, mask_of, top
from parity.forward.number_formats import NUMPY
from parity.forward.substeps import LOGITS, in_words
from parity.sides.side import Side, Trace
from transformer_spec import TransformerConfig

Pair = tuple[Trace, Trace]


def with_errors(
    rows: list[Row], name: str, runs: Pair, truths: Pair, ids: Ids, config: TransformerConfig
) -> list[Row]:
    """The rows with the larger error of both sides in the number format ``name``.

    A side that does not compute in it has an empty trace and is left out.
    """
    able = [k for k in (0, 1) if runs[k]]

    def judged(row: Row) -> Row:
        step = row.part
        if not able or not all(step in truths[k] for k in able):
            return row
        mask = mask_of(step, ids, config)
        errors = [differing(step, truths[k][step], runs[k][step], mask)[0] for k in able]
        return replace(row, errors={**row.errors, name: float(np.max(errors))})

    return [judged(row) for row in rows]


def rounding(
    name: str, runs: Pair, truths: Pair, ids: Ids, config: TransformerConfig
) -> Rounding | None:
    """Each side's logits beside its own float64; None where neither computes in the format."""
    if not any(runs):
        return None
    mask = mask_of(LOGITS, ids, config)

    def side(run: Trace, truth: Trace) -> Agreement | None:
        if not run:
            return None
        step = first_not_finite(run, ids, config)
        found = agreement([(truth[LOGITS][mask], run[LOGITS][mask])])
        return replace(found, overflow=in_words(step) if step else None)

    a, b = (side(*pair) for pair in zip(runs, truths, strict=True))
    return Rounding(a, b, honest_range(name, truths[0 if runs[0] else 1][LOGITS][mask]))


def honest_range(name: str, logits: np.ndarray) -> tuple[float, float]:
    """Where rounding alone leaves logits: from a fraction of one rounding to some hundreds."""
    unit = float(ml_dtypes.finfo(NUMPY.get(name, NUMPY["bfloat16"])).eps)
    return unit / 16, 256 * unit * max(1.0, in_proportion(LOGITS, logits)[1])


def agreement_of(truths: Traces, batches: list[Ids], config: TransformerConfig) -> Agreement:
    """B's float64 logits beside A's."""
    pairs = zip(truths, batches, strict=True)
    masked = ((pair, mask_of(LOGITS, ids, config)) for pair, ids in pairs)
    return agreement((one[LOGITS][mask], other[LOGITS][mask]) for (one, other), mask in masked)


def agreement(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> Agreement:
    """Of (true logits, logits), each (N, V), of every batch."""
    most = np.zeros(3)
    sums, rows, moments = np.zeros(3), 0, np.zeros(3)
    for truth, logits in pairs:
        apart, (factors, scale) = divergence(truth, logits), in_proportion(LOGITS, truth)
        most = np.maximum(most, (largest((logits - truth) * factors), scale, apart.max()))
        best = (top(logits, 1) == top(truth, 1)).all(-1).sum()
        five = (np.sort(top(logits, 5)) == np.sort(top(truth, 5))).all(-1).sum()
        sums, rows = sums + (apart.sum(), best, five), rows + len(truth)
        near = truth[:, factors == 1.0] if isinstance(factors, np.ndarray) else truth
        moments += near.size, near.sum(), np.square(near).sum()
    (max_abs, scale, max_kl), (mean_kl, top1, top5) = most.tolist(), (sums / rows).tolist()
    relative = max_abs / scale if scale else 0.0
    spread = _deviation(*moments.tolist())
    return Agreement(max_abs, relative, max_kl, mean_kl, top1, top5, spread=spread)


def _deviation(count: float, total: float, squares: float) -> float:
    """The standard deviation of numbers with these sums."""
    return math.sqrt(max(0.0, squares / count - (total / count) ** 2))


def not_computed(name: str, a: Side, b: Side, runs: Pair) -> list[str]:
    """A note for each side that does not compute in a number format that was asked for."""
    return [
        f"{name} is left out for {label}: {side.what} does not compute in it"
        + (" module by module" if side.streamed else "")
        for label, side, run in zip("AB", (a, b), runs, strict=True)
        if not run
    ]
