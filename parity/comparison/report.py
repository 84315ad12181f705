"""What a comparison found: the rows, what each number format rounds, and why two models differ."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from parity.comparison.settings import Settings
from parity.forward.measures import FLOAT32_BOUND, over_spread
from parity.forward.substeps import in_words
from transformer_spec import UserError
from transformer_spec.errors import first_of
from transformer_spec.paths import as_path

FORMAT_VERSION = 2
NO_SLIP = "no single known slip explains it"
NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Row:
    """The largest difference of one sub-step, the loss or one gradient.

    ``float64`` judges, ``scale`` is the largest of A's numbers, ``errors`` what other number
    formats round: the larger error of both sides, each against its own float64.
    """

    part: str
    float64: float
    bound: float
    scale: float = 1.0
    errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the difference is within its bound."""
        return self.float64 <= self.bound

    @property
    def nearness(self) -> tuple[bool, bool, float]:
        """Larger is worse: failures first, NaN before all, then what is nearest to its bound."""
        ratio = self.float64 / self.bound
        broken = math.isnan(ratio)
        return not self.passed, broken, 0.0 if broken else ratio

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Row:
        judged, bound, scale = (float(content[name]) for name in ("float64", "bound", "scale"))
        errors = {name: float(error) for name, error in content["errors"].items()}
        return cls(str(content["part"]), judged, bound, scale, errors)


@dataclass(frozen=True)
class SideSummary:
    """``given`` is what the user typed, ``what`` what it is."""

    given: str
    what: str
    framework: str
    device: str


@dataclass(frozen=True)
class Agreement:
    """How far logits are from true ones: the largest difference, also relative to the largest true
    one, divergences in nats, shares of rows with the same best token and the same five;
    ``overflow`` is where numbers that are not finite begin, ``spread`` the standard deviation of
    the true logits.
    """

    max_abs: float
    relative: float
    max_kl: float
    mean_kl: float
    top1: float
    top5: float
    overflow: str | None = None
    spread: float = 1.0

    @property
    def over_spread(self) -> float:
        """The largest error over the spread, where that is above 1."""
        return over_spread(self.max_abs, self.spread)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"over_spread": self.over_spread}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Agreement:
        others = "overflow", "over_spread"
        numbers = {name: float(content[name]) for name in content if name not in others}
        return cls(overflow=content["overflow"], **numbers)


@dataclass(frozen=True)
class Rounding:
    """What a number format does to the logits of each side, against its own float64.

    ``honest`` is the range in which rounding alone leaves them; a side that does not compute in the
    format is None.
    """

    a: Agreement | None
    b: Agreement | None
    honest: tuple[float, float]

    @property
    def sides(self) -> dict[str, Agreement]:
        return {name: side for name, side in (("A", self.a), ("B", self.b)) if side is not None}

    @property
    def max_abs(self) -> float:
        """The larger of both sides' largest errors; NaN above all."""
        sizes = [side.max_abs for side in self.sides.values()]
        return math.nan if any(map(math.isnan, sizes)) else max(sizes)

    def to_dict(self) -> dict[str, Any]:
        sides = {"a": self.a, "b": self.b}
        shown = {name: side and side.to_dict() for name, side in sides.items()}
        return {**shown, "honest": self.honest}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Rounding:
        a, b = (content[k] and Agreement.from_dict(content[k]) for k in ("a", "b"))
        low, high = map(float, content["honest"])
        return cls(a, b, (low, high))


@dataclass(frozen=True)
class Departure:
    """The first sub-step that differs, and both numbers where it differs most.

    That is in the batch of number ``batch``, from 0, at the indices ``at`` of the sub-step's array.
    """

    part: str
    batch: int
    at: tuple[int, ...]
    a: float
    b: float
    difference: float

    @property
    def in_words(self) -> str:
        return in_words(self.part)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Departure:
        numbers = (float(content[name]) for name in ("a", "b", "difference"))
        return cls(content["part"], content["batch"], tuple(content["at"]), *numbers)


@dataclass(frozen=True)
class Cause:
    """A slip that explains the whole difference, up to ``difference_left``."""

    name: str
    in_words: str
    difference_left: float = 0.0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Cause:
        left = float(content["difference_left"])
        return cls(str(content["name"]), str(content["in_words"]), left)


@dataclass(frozen=True)
class Report:
    """The comparison of A and B.

    ``batches`` are the shapes of source and target of each; ``causes`` is None where none was
    looked for; ``weights`` says which tensors differ, where some do; ``not_judged`` are settings
    that differ and change nothing that is compared.
    """

    a: SideSummary
    b: SideSummary
    settings: Settings
    batches: tuple[tuple[tuple[int, ...], ...], ...]
    config: Mapping[str, Any]
    different_settings: Mapping[str, tuple[Any, Any]]
    notes: tuple[str, ...]
    agreement: Agreement
    rows: tuple[Row, ...]
    budget: Mapping[str, Rounding]
    first: Departure | None = None
    causes: tuple[Cause, ...] | None = None
    weights: str | None = None
    not_judged: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    @cached_property
    def same(self) -> bool:
        """Whether every row is within its bound."""
        return all(row.passed for row in self.rows)

    @cached_property
    def verdict(self) -> str:
        """The result and its reason in one line."""
        if self.same:
            found = self.budget.items()
            rounding = [f"{name} rounding {entry.max_abs:.0e}" for name, entry in found]
            others = fields_in_words(self.not_judged)
            told = [f"{NOT_JUDGED}, and different: {others}"] if others else []
            unseen = [self.weights] if self.weights else []
            return "; ".join(["same function", *rounding, *unseen, *told])
        failed = next(row for row in self.rows if not row.passed)
        shown = self.first is not None and self.first.part == failed.part
        what = self.first.in_words if self.first and shown else failed.part
        behind = self.causes[0].in_words if self.causes else self.unexplained
        return (
            f"not the same function: {what} is the first to differ, by {failed.float64:.3e}, where "
            f"rounding is at most {failed.bound:.3e}{f'; {behind}' if behind else ''}"
        )

    @property
    def unexplained(self) -> str:
        """What is known of a difference that no cause was found for; nothing where nothing is."""
        judged = {n: v for n, v in self.different_settings.items() if n not in self.not_judged}
        fields = fields_in_words(judged)
        told = f"different in their configs: {fields}" if fields else ""
        looked_for = self.first is not None and self.causes is not None
        known = self.weights or (NO_SLIP if looked_for else "")
        return "; ".join(filter(None, (known, told)))

    def save_html(self, path: str | os.PathLike[str]) -> Path:
        """Write all of it as one page for a browser, which needs nothing beside it; its path.

        What cannot be written is a UserError, and nothing is left of it.
        """
        from parity.page.page import write_page

        return write_page(self, as_path(path, "path"))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; a number that JSON has not is a string that ``float`` reads."""
        found = asdict(self) | {
            "rows": [row.to_dict() for row in self.rows],
            "agreement": self.agreement.to_dict(),
            "budget": {name: entry.to_dict() for name, entry in self.budget.items()},
        }
        judged = {"same": self.same, "verdict": self.verdict, "float32_bound": FLOAT32_BOUND}
        return plain({"format_version": FORMAT_VERSION, **found, **judged})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """A report as it was written; one that is damaged or of another version is a UserError."""
        version = content.get("format_version") if isinstance(content, Mapping) else None
        if version != FORMAT_VERSION or type(version) is not int:
            raise UserError(
                f"the report has format_version {version!r}; this program reads {FORMAT_VERSION}: "
                "install the twinformer that wrote it, or compare again"
            )
        try:
            return cls(**_fields(content))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"the report is damaged: {type(error).__name__}: {error}") from None


def fields_in_words(fields: Mapping[str, tuple[Any, Any]]) -> str:
    """``num_heads (A 4, B 8), head_dim (A 16, B 8)``; of many the first ones and their number."""
    each = [f"{name} (A {one!r}, B {other!r})" for name, (one, other) in fields.items()]
    return ", ".join(first_of(each, "fields"))


def _fields(content: Mapping[str, Any]) -> dict[str, Any]:
    first, causes = content["first"], content["causes"]
    return {
        **{side: SideSummary(**content[side]) for side in ("a", "b")},
        "settings": Settings.from_dict(content["settings"]),
        "batches": tuple(tuple(map(tuple, batch)) for batch in content["batches"]),
        "config": content["config"],
        "different_settings": _pairs(content["different_settings"]),
        "notes": tuple(content["notes"]),
        "agreement": Agreement.from_dict(content["agreement"]),
        "rows": tuple(map(Row.from_dict, content["rows"])),
        "budget": {name: Rounding.from_dict(c) for name, c in content["budget"].items()},
        "first": first and Departure.from_dict(first),
        "causes": None if causes is None else tuple(map(Cause.from_dict, causes)),
        "weights": content["weights"],
        "not_judged": _pairs(content.get("not_judged", {})),  # older files have none
    }


def _pairs(content: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (one, other) for name, (one, other) in content.items()}


def plain(value: Any) -> Any:
    """The same data with NaN and infinite numbers as the strings ``float`` reads."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def json_of(content: Any) -> str:
    """Strict JSON, numbers that it cannot hold as strings."""
    return json.dumps(plain(content), indent=2, allow_nan=False)
