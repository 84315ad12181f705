"""Curves over the rows of a report as inline SVG, one for each number format, on a log axis.

The picture is as wide as the page lets it be: what stretches lies in an SVG of its own, points
stand at percentages, and labels are HTML beside it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from parity.comparison.plot import JUDGE, Group, Scale, errors, grouped, scale_of
from parity.comparison.report import Rounding, Row
from parity.page.markup import Markup, element, joined
from parity.page.numbers import number

SIZE = 1000  # of the SVG that is stretched, in units of its own
MOST_TICKS = 9
# The width of a letter below the axis, as a share of the axis.
LETTER_ON_DESK, LETTER_ON_PHONE = 0.008, 0.023
KNOWN = (JUDGE, "float32", "bfloat16", "float16")
SHORT = {
    "embedding": "emb",
    "embedding norm": "norm",
    "final norm": "norm",
    "relative bias": "bias",
    "finalFc": "out",
}


class Curves(NamedTuple):
    """What one chart draws: groups of rows, the formats that were measured, and the axis."""

    groups: list[Group]
    formats: list[str]
    scale: Scale
    budget: Mapping[str, Rounding]

    @property
    def points(self) -> list[tuple[float, Row]]:
        """Every row with its place from left to right, 0 to 1."""
        end = self.groups[-1].end
        return [
            (x / end, row) for g in self.groups for x, row in zip(g.places, g.rows, strict=True)
        ]

    def height(self, error: float) -> float:
        """Where an error stands, 0 at the top and 1 at the bottom."""
        low, high = math.log10(self.scale.bottom), math.log10(self.scale.top)
        placed = self.scale.place(error)
        placed = self.scale.top if math.isnan(placed) else placed
        return (high - math.log10(placed)) / (high - low)


def curves_of(rows: Sequence[Row], budget: Mapping[str, Rounding]) -> Curves:
    groups = list(grouped(list(rows)))
    formats = list(dict.fromkeys(name for row in rows for name in errors(row)))
    shown = {name: budget[name] for name in formats if name in budget}
    return Curves(groups, formats, scale_of(list(rows), shown), shown)


def chart(title: str, curves: Curves, places: Mapping[str, int]) -> Markup:
    """A figure; ``places`` are the numbers of the rows in the table, which scripts read."""
    drawn = element(
        "svg", element("title", title), *_background(curves), _stretched(curves),
        *_points(curves, places), role="img",
    )  # fmt: skip
    return element(
        "figure",
        element("figcaption", title),
        _legend(curves),
        element(
            "div",
            element("div", *_y_labels(curves), class_="y-axis", aria_hidden="true"),
            element("div", drawn, class_="plot", data_plot=True),
            element("div", *_x_labels(curves), class_="x-axis", aria_hidden="true"),
            class_="chart",
        ),
        element("p", class_="reading", data_reading=True, aria_live="polite"),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3f}%"


def kind(name: str) -> str:
    """The class of a number format's curve."""
    return f"format-{name if name in KNOWN else 'other'}"


def _background(curves: Curves) -> Iterator[Markup]:
    """Every other layer shaded, decades ruled, what rounding honestly does as bands."""
    end = curves.groups[-1].end
    for group in curves.groups[1::2]:
        x, width = _percent(group.start / end), _percent((group.end - group.start) / end)
        yield element("rect", x=x, y="0", width=width, height="100%", class_="layer")
    for _, y in _ticks(curves):
        yield element("line", x1="0", x2="100%", y1=_percent(y), y2=_percent(y), class_="rule")
    for name, rounding in curves.budget.items():
        top, bottom = curves.height(rounding.honest[1]), curves.height(rounding.honest[0])
        height = _percent(bottom - top)
        yield element("rect", x="0", y=_percent(top), width="100%", height=height,
                      class_=f"band {kind(name)}")  # fmt: skip


def _stretched(curves: Curves) -> Markup:
    """The lines, which no percentages can place."""
    lines = [
        element("path", d=_path(curves, name), class_=f"curve {kind(name)}")
        for name in curves.formats
    ]
    bound = element("path", d=_steps(curves), class_="curve bound")
    box = f"0 0 {SIZE} {SIZE}"
    return element("svg", bound, *lines, viewBox=box, preserveAspectRatio="none")


def _path(curves: Curves, name: str) -> str:
    """Lines between neighbours that were both measured."""
    d, before = [], False
    for x, row in curves.points:
        error = errors(row).get(name)
        if error is not None:
            d.append(f"{'L' if before else 'M'}{SIZE * x:.1f} {SIZE * curves.height(error):.1f}")
        before = error is not None
    return "".join(d)


def _steps(curves: Curves) -> str:
    """The bound of float64, which steps where rows have different ones."""
    places = [x for x, _ in curves.points]
    edges = [(a + b) / 2 for a, b in itertools.pairwise(places)]
    d = "M0 "
    for edge, (_, row) in zip([*edges, 1.0], curves.points, strict=True):
        y = f"{SIZE * curves.height(row.bound):.1f}"
        d += f"{y}H{SIZE * edge:.1f}" if d == "M0 " else f"V{y}H{SIZE * edge:.1f}"
    return d


def _points(curves: Curves, places: Mapping[str, int]) -> Iterator[Markup]:
    """A group for each row, with its name and numbers where scripts are off."""
    for x, row in curves.points:
        marks = [
            element("circle", cx=_percent(x), cy=_percent(curves.height(error)), r="2.5",
                    class_=f"point {kind(name)}")
            for name, error in errors(row).items()
        ]  # fmt: skip
        if not row.passed:
            cross = element("path", d="M-4-4L4 4M4-4L-4 4", class_="cross")
            y = _percent(curves.height(row.float64))
            marks.append(element("svg", cross, x=_percent(x), y=y, overflow="visible"))
        numbers = (f"{name} {number(error)}" for name, error in errors(row).items())
        said = element("title", f"{row.part}: {', '.join(numbers)}")
        yield element("g", said, *marks, data_row=places[row.part], data_x=f"{x:.5f}")


def _ticks(curves: Curves) -> list[tuple[str, float]]:
    """Decades and where they stand; the lowest is 0, the highest what is no finite number."""
    low, high = (round(math.log10(edge)) for edge in (curves.scale.bottom, curves.scale.top))
    every = max(1, math.ceil((high - low) / MOST_TICKS))
    powers = range(low + every, high, every)
    ticks = [(f"1e{power}", (high - power) / (high - low)) for power in powers]
    drawn = [error for _, row in curves.points for error in errors(row).values()]
    top = [] if all(map(math.isfinite, drawn)) else [("NaN, inf", 0.0)]
    return [("0", 1.0), *ticks, *top]


def _y_labels(curves: Curves) -> Iterator[Markup]:
    for label, y in _ticks(curves):
        yield element("span", label, style=f"top:{_percent(y)}")


def _x_labels(curves: Curves) -> Iterator[Markup]:
    """Layers by their numbers, and below them the halves they are of."""
    end = curves.groups[-1].end
    labels = [((g.start + g.end) / 2 / end, _short(g.label)) for g in curves.groups]
    few = fitting(labels, LETTER_ON_PHONE)
    for x, label in fitting(labels, LETTER_ON_DESK):
        class_ = "label" if (x, label) in few else "label rare"
        yield element("span", label, class_=class_, style=f"left:{_percent(x)}")
    for half, members in itertools.groupby(curves.groups, lambda group: _half(group.label)):
        held = list(members)
        start, width = held[0].start / end, (held[-1].end - held[0].start) / end
        yield element("span", half, class_="half",
                      style=f"left:{_percent(start)};width:{_percent(width)}")  # fmt: skip


def fitting(labels: Sequence[tuple[float, str]], letter: float) -> list[tuple[float, str]]:
    """The labels that do not touch another: the last one first, then layers, then the others."""
    kept: list[tuple[float, str]] = []
    for x, label in sorted(labels, key=lambda one: (one != labels[-1], not one[1].isdigit())):
        needed = ((len(label) + len(other) + 2) / 2 * letter for _, other in kept)
        if all(abs(x - y) >= room for (y, _), room in zip(kept, needed, strict=True)):
            kept.append((x, label))
    return kept


def _half(label: str) -> str:
    return "decoder" if label == "logits" else label.partition(" ")[0]


def _short(label: str) -> str:
    """``3`` for ``encoder 3``, ``emb`` for ``encoder embedding``."""
    _, _, rest = label.partition(" ")
    return SHORT.get(rest, rest or label)


def _legend(curves: Curves) -> Markup:
    failed = sum(not row.passed for _, row in curves.points)
    entries = [_key(name, f"key {kind(name)}") for name in curves.formats]
    entries.append(_key("bound of float64", "key bound"))
    if curves.budget:
        entries.append(_key("band: what honest rounding does to logits", "key band"))
    if failed:
        entries.append(_key(f"FAIL ({failed})", "key cross"))
    return element("ul", *entries, class_="legend")


def _key(what: str, class_: str) -> Markup:
    """One line of the legend with a sample of what it names."""
    line = element("path", d="M1 6H27", class_="curve")
    cross = element("path", d="M10 2L18 10M18 2L10 10", class_="cross")
    sample = {"key cross": cross, "key band": element("rect", width="28", height="12")}
    drawn = element("svg", sample.get(class_, line), viewBox="0 0 28 12", aria_hidden="true")
    return element("li", joined((drawn, what)), class_=class_)
