"""The comparison of two models: every sub-step, the loss and every gradient, in every precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import torch

from parity.explain import explain
from parity.inputs import Ids, generated, read_ids
from parity.measures import Budget, largest_difference
from parity.opening import check_comparable, different_settings, open_sides
from parity.sides import NUMPY, Side, Trace
from parity.substeps import LOGITS, in_words, over_source, substeps
from transformer_spec import Faults

STEP_BOUND = 1e-11
GRADIENT_BOUND = 1e-10
REPORT_VERSION = 1
Said = Callable[[str], object]


@dataclass(frozen=True)
class Settings:
    """How to compare; the defaults take a minute for a base-size model on two cores.

    All batches are compared in float64, the first one in the other precisions as well.
    """

    precisions: tuple[str, ...] = ("float32", "bfloat16")
    gradients: bool = True
    explain: bool = True
    longest: int | None = None
    ids: str | None = None
    seed: int = 0
    frameworks: tuple[str | None, str | None] = (None, None)
    devices: tuple[str, str] = ("cpu", "cpu")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Settings:
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in content.items()
        }
        return cls(**values)


def compare(a: str, b: str, settings: Settings, say: Said = lambda _: None) -> dict[str, Any]:
    """Open both and compare them; the report is plain JSON data."""
    exact_numbers()
    say("reading")
    sides = open_sides(a, b, settings.frameworks)
    for side, device in zip(sides, settings.devices, strict=True):
        side.device = device
    return compare_sides(*sides, settings, say)


def exact_numbers() -> None:
    """64-bit numbers and full float32 precision in both frameworks."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    torch.set_float32_matmul_precision("highest")


def compare_sides(
    a: Side, b: Side, settings: Settings, say: Said = lambda _: None
) -> dict[str, Any]:
    """The report on two open sides."""
    check_comparable(a, b)
    check_finite(a, b)
    batches = ids_for(a, b, settings)
    say("float64")
    truths = [(a.trace(ids, "float64"), b.trace(ids, "float64")) for ids in batches]
    rows = step_rows(a, truths, batches)
    if settings.gradients:
        say("gradients")
        rows += gradient_rows(a, b, batches[0])
    budget = {}
    for precision in settings.precisions:
        say(precision)
        found = [(a.trace(batches[0], precision), b.trace(batches[0], precision))]
        budget |= errors_of(precision, rows, found, truths[:1], a, batches[:1])
    report = {
        "format_version": REPORT_VERSION,
        **{name: described(side) for name, side in (("a", a), ("b", b))},
        "settings": settings.to_dict(),
        "inputs": {"batches": [[list(part.shape) for part in ids] for ids in batches]},
        "config": b.config.to_dict(),
        "different_settings": different_settings(a.config, b.config),
        "agreement": agreement(truths, batches, a),
        "rows": rows,
        "budget": budget,
        "passed": all(row["passed"] for row in rows),
    }
    report |= departure((a, b), rows, truths, batches, say) if settings.explain else {}
    return report | {"verdict": verdict(report)}


def departure(
    sides: tuple[Side, Side],
    rows: list[dict],
    truths: list[tuple[Trace, Trace]],
    batches: list[Ids],
    say: Said,
) -> dict[str, Any]:
    """The first sub-step that differs, where and how, and what explains it; {} if none does."""
    step = next((r["part"] for r in rows if not r["passed"] and r["part"] in truths[0][0]), None)
    if step is None:
        return {}
    masks = [mask_of(step, ids, sides[0]) for ids in batches]
    sizes = [
        largest_difference(one[step], other[step], mask)
        for (one, other), mask in zip(truths, masks, strict=True)
    ]
    k = int(np.argmax(np.nan_to_num(sizes, nan=np.inf)))
    apart = np.abs(truths[k][0][step] - truths[k][1][step]) * masks[k][..., None]
    at = np.unravel_index(int(np.nan_to_num(apart, nan=np.inf).argmax()), apart.shape)
    say("explaining")
    causes = explain(sides, truths[k], batches[k], step)
    first = {
        "part": step,
        "in_words": in_words(step),
        "batch": k,
        "at": [int(i) for i in at],
        "a": float(truths[k][0][step][at]),
        "b": float(truths[k][1][step][at]),
        "difference": sizes[k],
    }
    return {"first": first, "causes": [cause.to_dict() for cause in causes]}


def described(side: Side) -> dict[str, Any]:
    return {
        "given": side.given,
        "what": side.what,
        "framework": side.framework,
        "device": side.device,
    }


def ids_for(a: Side, b: Side, settings: Settings) -> list[Ids]:
    """The user's ids, or generated ones that both models can take."""
    shorter = min((a.config, b.config), key=lambda config: config.max_length)
    if settings.ids is not None:
        return read_ids(Path(settings.ids), shorter)
    return generated(shorter, settings.longest, settings.seed)


def check_finite(a: Side, b: Side) -> None:
    """Weights that hold NaN or infinite numbers are one UserError that names them."""
    faults = Faults()
    for label, side in (("A", a), ("B", b)):
        for name, array in (side.weights or {}).items():
            wrong = int((~np.isfinite(array.astype(np.float32))).sum())
            faults.require(not wrong, f"{label}: {wrong} numbers of {name} are NaN or infinite")
    faults.raise_if_any("nothing can be compared")


def step_rows(a: Side, truths: list[tuple[Trace, Trace]], batches: list[Ids]) -> list[dict]:
    """A row for every sub-step that both sides show, in the order in which they happen."""
    seen = set(truths[0][0]) & set(truths[0][1])
    steps = [step for step in substeps(a.config) if step in seen]
    rows = []
    for step in steps:
        difference = scale = 0.0
        for (one, other), ids in zip(truths, batches, strict=True):
            mask = mask_of(step, ids, a)
            difference = worst(difference, largest_difference(one[step], other[step], mask))
            scale = worst(scale, float(np.abs(one[step][mask]).max()))
        rows.append(row_of(step, difference, scale, STEP_BOUND))
    return rows


def row_of(part: str, difference: float, scale: float, bound: float) -> dict[str, Any]:
    """Bounds are for numbers around 1; larger ones are rounded in proportion."""
    allowed = bound * max(1.0, scale) if math.isfinite(scale) else bound
    passed = difference <= allowed
    errors = {"float64": difference}
    return {
        "part": part,
        "float64": difference,
        "scale": scale,
        "bound": allowed,
        "passed": passed,
        "errors": errors,
    }


def worst(a: float, b: float) -> float:
    """The larger; NaN wins, since no bound accepts it."""
    return float(np.maximum(a, b))


def mask_of(step: str, ids: Ids, side: Side) -> np.ndarray:
    source, target = ids.real(side.config)
    return source if over_source(step) else target


def gradient_rows(a: Side, b: Side, ids: Ids) -> list[dict]:
    """The loss and each gradient that both sides give."""
    first, second = a.gradients(ids), b.gradients(ids)
    if first is None or second is None:
        return []
    (loss, one), (other_loss, other) = first, second
    rows = [row_of("loss", abs(loss - other_loss), abs(loss), GRADIENT_BOUND)]
    left_out = a.untrained_rows() | b.untrained_rows()
    for name in (name for name in one if name in other):
        both, what = (one[name], other[name]), f"gradient of {name}"
        if name in left_out:
            both = tuple(np.delete(gradient, left_out[name], 0) for gradient in both)
            what += f" but row {left_out[name]}"
        difference, scale = float(np.abs(both[0] - both[1]).max()), float(np.abs(both[0]).max())
        rows.append(row_of(what, difference, scale, GRADIENT_BOUND))
    return rows


def errors_of(
    precision: str,
    rows: list[dict],
    found: list[tuple[Trace, Trace]],
    truths: list[tuple[Trace, Trace]],
    a: Side,
    batches: list[Ids],
) -> dict[str, Any]:
    """Error of each side in one precision against its own float64; rows get the larger one.

    A side that cannot compute in that precision gives an empty trace and is left out.
    """
    able = [k for k in (0, 1) if found[0][k]]
    for row in rows:
        step = row["part"]
        if able and all(step in truths[0][k] for k in able):
            row["errors"][precision] = max(
                largest_difference(run[k][step], truth[k][step], mask_of(step, ids, a))
                for run, truth, ids in zip(found, truths, batches, strict=True)
                for k in able
            )
    sides: dict[str, Any] = {}
    for k in able:
        budget = Budget()
        for run, truth, ids in zip(found, truths, batches, strict=True):
            mask = mask_of(LOGITS, ids, a)
            budget.add(run[k][LOGITS][mask], truth[k][LOGITS][mask])
        sides["ab"[k]] = budget.to_dict()
    if not sides:
        return {}
    honest = honest_range(precision, found[0][able[0]][LOGITS])
    largest = max(side["max_abs"] for side in sides.values())
    return {precision: {**sides, "max_abs": largest, "honest": honest}}


def honest_range(precision: str, logits: np.ndarray) -> list[float]:
    """Where rounding alone leaves logits: from a fraction of one rounding to some hundreds."""
    unit = float(ml_dtypes.finfo(NUMPY.get(precision, NUMPY["bfloat16"])).eps)
    return [unit / 16, 256 * unit * max(1.0, float(np.abs(logits).max()))]


def agreement(truths: list[tuple[Trace, Trace]], batches: list[Ids], a: Side) -> dict[str, float]:
    """B's float64 logits beside A's."""
    budget = Budget()
    for (one, other), ids in zip(truths, batches, strict=True):
        mask = mask_of(LOGITS, ids, a)
        budget.add(other[LOGITS][mask], one[LOGITS][mask])
    return budget.to_dict()


def verdict(report: dict[str, Any]) -> str:
    """The result in one line."""
    failed = [row for row in report["rows"] if not row["passed"]]
    if not failed:
        budget = report["budget"].items()
        rounding = [f"{name} rounding {found['max_abs']:.0e}" for name, found in budget]
        return "; ".join(["same function", *rounding])
    first = failed[0]
    what = in_words(first["part"]) if "first" in report else first["part"]
    causes = report.get("causes") or []
    behind = f"; {causes[0]['in_words']}" if causes else ""
    return (
        f"not the same function: {what} is the first to differ, by {first['float64']:.1e}, where "
        f"rounding is at most {first['bound']:.0e}{behind}"
    )
