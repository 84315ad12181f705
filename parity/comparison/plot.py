"""parity.png: how far A and B are apart at every sub-step, for each number format."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from parity.comparison.report import Report, Rounding, Row, SideSummary
from parity.forward.substeps import LOGITS, is_step
from training_recipe.files.writing import written_aside
from transformer_spec import UserError

LAYER = re.compile(r"(encoder|decoder)\.(?:enc|dec)_layers\.(\d+)(?:\.|$)")
JUDGE = "float64"
COLOURS = {JUDGE: "#4c72b0", "float32": "#55a868", "bfloat16": "#dd8452", "float16": "#8172b3"}
OTHER_COLOURS = ("#937860", "#64b5cd", "#da8bc3", "#8c8c8c")
WRONG, BOUND = "#c44e52", "#222222"
MOST_LEVEL = 4  # groups whose labels are not tilted: of more, those of single steps would overlap
NARROWEST = 1 / 36  # of the axis: the room of a group of one step, for its label
MOST_LABELS = 30


class Group(NamedTuple):
    """Neighbouring rows of one layer (or embedding, final norm, logits) and where they stand."""

    label: str
    rows: list[Row]
    places: list[float]
    start: float
    end: float


class Scale(NamedTuple):
    """The y axis; what is zero stands on ``bottom``, what is no finite number on ``top``."""

    bottom: float
    top: float

    def place(self, error: float | None) -> float:
        """Where an error stands; NaN, which is not drawn, where none was measured."""
        if error is None:
            return math.nan
        if not math.isfinite(error):
            return self.top
        return min(max(abs(error), self.bottom), self.top)


def plot(report: Report, path: Path) -> Path:
    """Draw a comparison's sub-steps, embedding to logits, as a PNG; its path.

    One line for each number format, the honest band of each shaded, the float64 bound dashed, FAIL
    rows marked.
    A report without a row to draw is a UserError.
    """
    groups = list(grouped([row for row in report.rows if is_step(row.part)]))
    if not groups:
        raise UserError(f"{path}: the report has no sub-step and no logits to draw")
    figure = draw(report, groups)
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=110)
    return path


def group_of(part: str) -> str:
    """What a row's group is called: its layer, counted from 1, or what stands beside the layers."""
    layer = LAYER.match(part)
    if layer:
        return f"{layer[1]} {int(layer[2]) + 1}"
    if part == LOGITS:
        return "logits"
    half, _, rest = part.partition(".")
    rest = rest.removesuffix(" input").split(".")[0].replace("_", " ")
    return f"{half} {'embedding' if rest.startswith('embed') else rest}"


def grouped(rows: list[Row]) -> Iterator[Group]:
    """The rows from left to right, a unit apart; small groups get more room for their labels."""
    start, least = 0.0, len(rows) * NARROWEST
    for label, members in itertools.groupby(rows, lambda row: group_of(row.part)):
        held = list(members)
        width = max(float(len(held)), least)
        step = width / len(held)
        places = [start + step * (number + 0.5) for number in range(len(held))]
        yield Group(label, held, places, start, start + width)
        start += width


def errors(row: Row) -> dict[str, float]:
    """Errors by number format, that of the judge first."""
    return {JUDGE: row.float64, **row.errors}


def draw(report: Report, groups: list[Group]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rows = [row for group in groups for row in group.rows]
    names = list(dict.fromkeys(name for row in rows for name in errors(row)))
    budget = report.budget
    scale = scale_of(rows, budget)
    axes.set_yscale("log")
    _layers(axes, groups)
    _bands(axes, names, budget, scale)
    _lines(axes, names, groups, scale)
    _bound(axes, groups, scale)
    _failures(axes, groups, scale)
    _y_axis(axes, scale)
    figure.legend(loc="outside lower center", ncols=5, fontsize=9)
    figure.suptitle(f"A: {_side(report.a)}\nB: {_side(report.b)}", fontsize=10)
    axes.set_title(report.verdict, fontsize=11)
    return figure


def scale_of(rows: list[Row], budget: Mapping[str, Rounding]) -> Scale:
    """Whole decades around every error, bound and band, and one more at the bottom for zero."""
    bands = [edge for entry in budget.values() for edge in entry.honest]
    bounds = [row.bound for row in rows]
    drawn = [error for row in rows for error in errors(row).values()]
    known = [abs(float(v)) for v in (*drawn, *bands, *bounds)]
    known = [value for value in known if value > 0 and math.isfinite(value)] or [1e-16, 1.0]
    below, above = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    return Scale(10.0 ** max(below - 1, -300), 10.0 ** min(above + 1, 300))


def _layers(axes: Any, groups: list[Group]) -> None:
    """Names of layers below the axis, every other layer shaded; few of many names are left out."""
    every = math.ceil(len(groups) / MOST_LABELS)
    kept = [g for n, g in enumerate(groups) if n % every == 0 or g is groups[-1]]
    axes.set_xticks([(g.start + g.end) / 2 for g in kept], [g.label for g in kept])
    tilted = len(groups) > MOST_LEVEL
    axes.tick_params(axis="x", length=0, rotation=45 if tilted else 0, labelsize=9)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right" if tilted else "center")
        label.set_rotation_mode("anchor")
    for group in groups:
        axes.axvline(group.start, color="#cccccc", linewidth=0.6, zorder=0)
    axes.set_xlim(0, groups[-1].end)


def _bands(axes: Any, names: list[str], budget: Mapping[str, Rounding], scale: Scale) -> None:
    for name in names:
        if name in budget:
            low, high = map(scale.place, budget[name].honest)
            colour = colours(names)[name]
            label = f"{name}: honest rounding"
            axes.axhspan(low, high, color=colour, alpha=0.15, linewidth=0, label=label, zorder=0)


def _lines(axes: Any, names: list[str], groups: list[Group], scale: Scale) -> None:
    places = [place for group in groups for place in group.places]
    rows = [row for group in groups for row in group.rows]
    for name in names:
        heights = [scale.place(errors(row).get(name)) for row in rows]
        style = {"color": colours(names)[name], "linewidth": 1.2, "marker": "o", "markersize": 3}
        # Zeros and infinite errors stand on the edge of the axes, which would cut off their marks.
        axes.plot(places, heights, label=name, clip_on=False, zorder=3, **style)


def colours(names: list[str]) -> dict[str, str]:
    """A colour for each number format, always the same for those that are known."""
    others = itertools.cycle(OTHER_COLOURS)
    return {name: COLOURS.get(name) or next(others) for name in names}


def _bound(axes: Any, groups: list[Group], scale: Scale) -> None:
    """The float64 bound as a dashed line that steps where rows have different ones."""
    rows = [(place, row) for g in groups for place, row in zip(g.places, g.rows, strict=True)]
    edges = [0.0, *((a[0] + b[0]) / 2 for a, b in itertools.pairwise(rows)), groups[-1].end]
    heights = [scale.place(row.bound) for _, row in rows]
    if not all(math.isnan(height) for height in heights):
        style = {"color": BOUND, "linestyle": "--", "linewidth": 1.2}
        axes.stairs(heights, edges, baseline=None, label="bound of float64", **style)


def _failures(axes: Any, groups: list[Group], scale: Scale) -> None:
    """A cross on every row that fails, and the name of the first."""
    failed = [
        (place, scale.place(errors(row).get(JUDGE)), row.part)
        for group in groups
        for place, row in zip(group.places, group.rows, strict=True)
        if not row.passed
    ]
    if not failed:
        return
    heights = [scale.top if math.isnan(height) else height for _, height, _ in failed]
    places = [place for place, *_ in failed]
    style = {"color": WRONG, "marker": "x", "linestyle": "", "markersize": 7, "zorder": 4}
    axes.plot(places, heights, label=f"FAIL ({len(failed)})", clip_on=False, **style)
    axes.axvline(places[0], color=WRONG, linewidth=1)
    late = places[0] > groups[-1].end / 2
    axes.annotate(
        f"first FAIL: {failed[0][2]}",
        (places[0], scale.bottom),
        xytext=(-6 if late else 6, 14),
        textcoords="offset points",
        ha="right" if late else "left",
        color=WRONG,
        fontsize=9,
    )


def _y_axis(axes: Any, scale: Scale) -> None:
    """Decades, the lowest of them named 0, and the highest for what is no finite number."""
    low, high = round(math.log10(scale.bottom)), round(math.log10(scale.top))
    every = max(1, math.ceil((high - low) / 20))
    powers = range(low + every, high, every)
    labels = [f"$10^{{{power}}}$" for power in powers]
    ticks = [scale.bottom, *(10.0**power for power in powers), scale.top]
    axes.set_ylim(scale.bottom, scale.top)
    axes.minorticks_off()
    axes.set_yticks(ticks, ["0", *labels, "NaN, inf"])
    axes.set_ylabel("largest absolute difference")
    axes.grid(axis="y", alpha=0.3)


def _side(side: SideSummary) -> str:
    return f"{side.given}, {side.what}"
