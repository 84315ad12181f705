"""Heat maps of attention, a panel for each layer and head, into a PNG, SVG or PDF."""

from __future__ import annotations

import math
import textwrap
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training_recipe.files.writing import replace_file
from twinformer.translating.attention import Map
from twinformer.translating.fonts import families_for

MEANINGS = {
    "cross": "cross attention: what the decoder looked at in the source to write a row's token",
    "encoder": "encoder self-attention: what a row's token looked at in the source",
    "decoder": "decoder self-attention: what was looked at before to write a row's token",
}
COLOURS = "Blues"
DPI = 100
INCH = 72  # points
LABEL, SMALLEST_LABEL, HEADING = 8.0, 6.0, 10.0  # points
LINE = 1.3  # sizes of the font from line to line
PITCH = 0.17  # inches from token to token, less where the picture would be too large
LARGEST = 60.0  # inches of all panels beside or above each other
SMALLEST_PANEL, SMALLEST_PICTURE = 1.2, 8.0  # inches: room for what stands above them
MARGIN, BAR, AWAY = 0.15, 1.5, 0.03  # inches
LONGEST_LABEL, LONGEST_TITLE = 16, 200  # letters


class Axis(NamedTuple):
    """One side of every panel: its labels, their size in points and the side's inches.

    Of many tokens only every ``step``-th has room for its label.
    """

    labels: list[str]
    font: float
    step: int
    inches: float

    @property
    def shown(self) -> list[tuple[int, str]]:
        """The labels that have room and the numbers of their tokens."""
        return list(enumerate(self.labels))[:: self.step]

    @property
    def longest(self) -> float:
        """The inches of the longest label."""
        return max(map(ems, self.labels)) * self.font / INCH

    @property
    def below(self) -> float:
        """The inches that the labels take below a panel."""
        lengths = (1.0 if self.fits(label) else ems(label) for label in self.labels)
        return max(lengths) * self.font / INCH

    def fits(self, label: str) -> bool:
        """Whether a label has room beside its neighbours."""
        room = self.step * self.inches / len(self.labels)
        return ems(label) * self.font / INCH <= room


def draw_map(found: Map, kind: str, title: str, path: Path) -> set[str]:
    """Draw a map into a PNG, SVG or PDF, as its name says; the characters that no font here has.

    Layers are below each other and heads side by side. In every panel white is 0 and the darkest
    blue is 1. Raises OSError where the file cannot be written.
    """
    title = shortened(title, LONGEST_TITLE)
    rows = axis_of(found.rows, found.weights.shape[0])
    columns = axis_of(found.columns, found.weights.shape[1])
    families, missing = families_for([title, *rows.labels, *columns.labels])
    with warnings.catch_warnings():
        # The caller hears of them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = _figure(found.weights, (rows, columns), (MEANINGS[kind], title), families)
        ending = path.suffix.lower().removeprefix(".")
        replace_file(path, lambda aside: figure.savefig(aside, format=ending, dpi=DPI))
    return missing


def axis_of(tokens: Sequence[str], panels: int) -> Axis:
    """The side of ``panels`` panels that has these tokens."""
    pitch = min(PITCH, LARGEST / (panels * len(tokens)))
    inches = max(SMALLEST_PANEL, pitch * len(tokens))
    room = INCH * inches / len(tokens)
    font = min(LABEL, max(SMALLEST_LABEL, 0.9 * room))
    step = math.ceil(font / room)
    return Axis([shortened(token, LONGEST_LABEL) for token in tokens], font, step, inches)


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def ems(text: str) -> float:
    """How wide a text is about, in sizes of its font."""
    return sum(1.05 if unicodedata.east_asian_width(c) in "WF" else 0.68 for c in text)


def _figure(
    weights: np.ndarray, sides: tuple[Axis, Axis], heading: tuple[str, str], families: list[str]
) -> Any:
    """The heading and below it the panels: rows and columns of sides given in this order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    (rows, columns), (layers, heads) = sides, weights.shape[:2]
    left, below = rows.longest + MARGIN, columns.below + MARGIN
    cell = left + columns.inches + MARGIN, below + rows.inches + 2 * HEADING / INCH
    width = max(SMALLEST_PICTURE, heads * cell[0] + MARGIN)
    lines = _lines(*heading, width)
    height = layers * cell[1] + 2 * MARGIN + (len(lines) + 1) * LINE * HEADING / INCH
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    _heading(figure, lines, families)
    for layer, head in np.ndindex(layers, heads):
        x, y = head * cell[0] + left, (layers - 1 - layer) * cell[1] + below
        place = x / width, y / height, columns.inches / width, rows.inches / height
        axes = figure.add_axes(place)
        axes.imshow(weights[layer, head], COLOURS, vmin=0, vmax=1, aspect="auto")
        axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=HEADING, pad=3)
        _tokens(axes, rows, columns, families)
    return figure


def _lines(meaning: str, title: str, width: float) -> list[str]:
    """The lines of the heading: the text and its output fill as many as they need, at most 3."""
    room = INCH * (width - BAR - 3 * MARGIN) / HEADING
    letters = int(room * len(title) / ems(title)) if title else 1
    ending = "\N{HORIZONTAL ELLIPSIS}"
    return [meaning, *textwrap.wrap(title, max(letters, 20), max_lines=3, placeholder=ending)]


def _heading(figure: Any, lines: list[str], families: list[str]) -> None:
    """The lines and a bar of colours."""
    from matplotlib.cm import ScalarMappable

    width, height = figure.get_size_inches()
    style = {"fontfamily": families, "parse_math": False, "va": "top", "linespacing": LINE}
    top = 1 - MARGIN / height
    figure.text(MARGIN / width, top, "\n".join(lines), fontsize=HEADING, **style)
    place = 1 - (BAR + 2 * MARGIN) / width, top - MARGIN / height, BAR / width, MARGIN / height
    bar = ScalarMappable(cmap=COLOURS)
    bar = figure.colorbar(bar, cax=figure.add_axes(place), orientation="horizontal")
    bar.ax.tick_params(labelsize=LABEL)


def _tokens(axes: Any, rows: Axis, columns: Axis, families: list[str]) -> None:
    """The labels; those of columns stand upright where they are wider than a token's room."""
    # As ticks they would take three times as long to draw.
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_linewidth(0.5)
    style = {"fontfamily": families, "parse_math": False}
    style |= {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    for place, label in rows.shown:
        axes.text(-AWAY / columns.inches, place, label, fontsize=rows.font, **style)
    style |= {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top"}
    for place, label in columns.shown:
        turn = 0 if columns.fits(label) else 90
        y = -AWAY / rows.inches
        axes.text(place, y, label, fontsize=columns.font, rotation=turn, **style)
