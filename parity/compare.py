"""The comparison of two models: every sub-step, the loss and every gradient, in every precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from parity.explain import explain
from parity.finite import check_traces, check_weights
from parity.inputs import Ids, generated, read_ids
from parity.measures import largest_difference, mask_of
from parity.memory import Plan, limit_of, needs, plan
from parity.needed import check_devices, exact_numbers
from parity.opening import check_comparable, different_settings, open_sides
from parity.rows import (
    Traces,
    agreement,
    gradient_rows,
    not_computed,
    precision_errors,
    step_rows,
    unseen,
)
from parity.sides import Side
from parity.substeps import in_words
from parity.texts import read_texts

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
    max_ram: int | None = None
    text: str | None = None

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
    check_devices((label, s.framework, s.device) for label, s in zip("AB", sides, strict=True))
    return compare_sides(*sides, settings, say)


def compare_sides(
    a: Side, b: Side, settings: Settings, say: Said = lambda _: None
) -> dict[str, Any]:
    """The report on two open sides."""
    check_comparable(a, b)
    batches = ids_for(a, b, settings)
    how = prepared(a, b, batches, settings)
    check_weights(a, b)
    say("float64")
    truths = [(a.trace(ids, "float64"), b.trace(ids, "float64")) for ids in batches]
    check_traces(truths, batches, a.config)
    rows, notes, budget = step_rows(a, truths, batches), [*how.notes, *unseen(a, b, truths)], {}
    if how.gradients:
        say("gradients")
        for held, found in zip((rows, notes), gradient_rows(a, b, batches), strict=True):
            held += found
    for precision in settings.precisions:
        say(precision)
        runs = a.trace(batches[0], precision), b.trace(batches[0], precision)
        notes += not_computed(precision, a, b, runs)
        budget |= precision_errors(precision, rows, runs, truths[0], batches[0], a.config)
    report = {
        "format_version": REPORT_VERSION,
        **{name: described(side) for name, side in (("a", a), ("b", b))},
        "settings": settings.to_dict() | {"gradients": how.gradients},
        "inputs": {"batches": [[list(part.shape) for part in ids] for ids in batches]},
        "config": b.config.to_dict(),
        "different_settings": different_settings(a.config, b.config),
        "notes": notes,
        "agreement": agreement(truths, batches, a.config),
        "rows": rows,
        "budget": budget,
        "passed": all(row["passed"] for row in rows),
    }
    causes = settings.explain and not how.streamed
    report |= departure((a, b), rows, truths, batches, say if causes else None)
    return report | {"verdict": verdict(report)}


def prepared(a: Side, b: Side, batches: list[Ids], settings: Settings) -> Plan:
    """How to compare within the memory there is; the weights are read where they all fit."""
    can_stream = a.can_stream and b.can_stream
    how = plan(needs(a, b, batches), limit_of(settings.max_ram), settings.gradients, can_stream)
    for side in (a, b):
        side.streamed = how.streamed
        if not how.streamed:
            side.read_all()
    return how


def departure(
    sides: tuple[Side, Side],
    rows: list[dict],
    truths: Traces,
    batches: list[Ids],
    say: Said | None,
) -> dict[str, Any]:
    """The first sub-step that differs, where and how; nothing of it if none does.

    With ``say``, which is told what is being tried, what explains it as well.
    """
    step = next((r["part"] for r in rows if not r["passed"] and r["part"] in truths[0][0]), None)
    if step is None:
        return gradient_causes(*sides, rows)
    masks = [mask_of(step, ids, sides[0].config) for ids in batches]
    sizes = [
        largest_difference(one[step], other[step], mask)
        for (one, other), mask in zip(truths, masks, strict=True)
    ]
    k = int(np.argmax(np.nan_to_num(sizes, nan=np.inf)))
    apart = np.abs(truths[k][0][step] - truths[k][1][step]) * masks[k][..., None]
    at = np.unravel_index(int(np.nan_to_num(apart, nan=np.inf).argmax()), apart.shape)
    first = {
        "part": step,
        "in_words": in_words(step),
        "batch": k,
        "at": [int(i) for i in at],
        "a": float(truths[k][0][step][at]),
        "b": float(truths[k][1][step][at]),
        "difference": sizes[k],
    }
    if say is None:
        return {"first": first}
    causes = explain(sides, truths[k], batches[k], step, say)
    return {"first": first, "causes": [cause.to_dict() for cause in causes]}


def gradient_causes(a: Side, b: Side, rows: list[dict]) -> dict[str, Any]:
    """What makes equal models learn differently: the same numbers tied in one of them alone."""
    ties = a.config.tied_embeddings, b.config.tied_embeddings
    if ties[0] == ties[1] or all(row["passed"] for row in rows):
        return {}
    words = f"tied embeddings: A {ties[0]!r}, B {ties[1]!r}"
    return {"causes": [{"cause": "tie", "in_words": words}]}


def described(side: Side) -> dict[str, Any]:
    return {
        "given": side.given,
        "what": side.what,
        "framework": side.framework,
        "device": side.device,
    }


def ids_for(a: Side, b: Side, settings: Settings) -> list[Ids]:
    """The user's ids or texts, or generated ids, that both models can take."""
    shorter = min((a.config, b.config), key=lambda config: config.max_length)
    if settings.ids is not None:
        return read_ids(Path(settings.ids), shorter)
    if settings.text is not None:
        return read_texts(Path(settings.text), (a.given, b.given), shorter)
    return generated(shorter, settings.longest, settings.seed)


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
