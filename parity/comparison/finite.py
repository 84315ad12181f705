"""NaN and infinite numbers: in weights, and in what is computed with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from parity.forward.measures import mask_of
from parity.forward.substeps import in_words, substeps
from transformer_spec import Faults, TransformerConfig

if TYPE_CHECKING:
    from parity.forward.ids import Ids
    from parity.sides.side import Side


def check_weights(a: Side, b: Side) -> None:
    """Weights that hold NaN or infinite numbers are one UserError that names them."""
    faults = Faults()
    for label, side in (("A", a), ("B", b)):
        for name, array in (side.weights or {}).items():
            wrong = int((~np.isfinite(array)).sum())
            faults.require(not wrong, f"{label}: {wrong} numbers of {name} are NaN or infinite")
    faults.raise_if_any("nothing can be compared")


def check_traces(
    traces: Sequence[tuple[Mapping[str, np.ndarray], ...]],
    batches: Sequence[Ids],
    config: TransformerConfig,
) -> None:
    """Models whose numbers overflow even in float64 are one UserError: where that begins."""
    faults = Faults()
    for k, label in enumerate("AB"):
        runs = [pair[k] for pair in traces]
        found = [first_not_finite(*item, config) for item in zip(runs, batches, strict=True)]
        step = min((s for s in found if s), key=substeps(config).index, default=None)
        if step is not None:
            faults.add(f"{label}: NaN or infinite numbers, first in {in_words(step)}")
    faults.raise_if_any("nothing can be compared")


def first_not_finite(
    trace: Mapping[str, np.ndarray], ids: Ids, config: TransformerConfig
) -> str | None:
    """The first sub-step whose real positions hold a NaN or infinite number."""
    for step in substeps(config):
        if step in trace and not np.isfinite(trace[step][mask_of(step, ids, config)]).all():
            return step
    return None
