"""Heat maps of attention, a panel for each layer and head, into a PNG, SVG or PDF."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training_recipe.files.writing import replace_file
from training_recipe.fonts import families_for
from twinformer.translating.attention import Map

MEANINGS = {
    "cross": "cross attention: what the decoder looked at in the source to write a row's token",
    "encoder": "encoder self-attention: what a row's token looked at in the source",
    "decoder": "decoder self-attention: what was looked at before to write a row's token",
}
COLOURS = "Blues"
DPI = 100
LABEL, HEADING = 8, 10  # points
PITCH = 0.17  # inches from token to token, less where the picture would be too large
SMALLEST, LARGEST = 1.2, 60.0  # inches: of a panel, of all panels beside or above each other
GAP, BAR = 0.25, 1.0  # inches between panels, of the bar of colours
LONGEST_LABEL = 16  # letters
LETTERS = 7  # of a heading on an inch, wide ones
Labels = tuple[list[int], list[str]]  # their tokens' numbers, and what they say


def draw_map(found: Map, kind: str, title: str, path: Path) -> set[str]:
    """Draw a map into a PNG, SVG or PDF, as its name says; the characters that no font here has.

    Layers are below each other and heads side by side; white is 0 and the darkest blue is 1. A file
    that cannot be written is a UserError.
    """
    families, missing = families_for("".join([title, *found.rows, *found.columns]))
    with warnings.catch_warnings():
        # The caller hears of them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = figure_of(found, MEANINGS[kind], title, families)
        ending = path.suffix.lower().removeprefix(".")
        replace_file(path, lambda aside: figure.savefig(aside, format=ending, dpi=DPI))
    return missing


def figure_of(found: Map, meaning: str, title: str, families: list[str]) -> Any:
    """The panels, with tokens beside the first heads and below the last layers, and a heading."""
    from matplotlib.figure import Figure

    layers, heads = found.weights.shape[:2]
    width, height = side(heads, len(found.columns)), side(layers, len(found.rows))
    columns, rows = labels(found.columns, width / heads), labels(found.rows, height / layers)
    left, below = room(rows[1]), room(columns[1])
    across = left + width + GAP * heads + BAR
    letters = int(LETTERS * across)
    lines = textwrap.wrap(meaning, letters) + textwrap.wrap(title, letters)[:3]
    top = 3 * GAP + len(lines) * HEADING * 1.2 / 72
    whole = across, below + height + GAP * layers + top
    figure = Figure(figsize=whole)
    panels: Any = figure.subplots(layers, heads, squeeze=False)
    figure.subplots_adjust(
        left=left / whole[0],
        right=1 - BAR / whole[0],
        bottom=below / whole[1],
        top=1 - top / whole[1],
        wspace=GAP * heads / width,
        hspace=GAP * layers / height,
    )
    image: Any = None
    for layer, head in np.ndindex(layers, heads):
        axes = panels[layer, head]
        image = axes.imshow(found.weights[layer, head], COLOURS, vmin=0, vmax=1, aspect="auto")
        axes.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=LABEL, pad=3)
        axes.set(xticks=[], yticks=[])
    _label(panels, rows, columns, families)
    style = {"fontfamily": families, "fontsize": HEADING, "parse_math": False, "va": "top"}
    figure.text(GAP / whole[0], 1 - GAP / whole[1], "\n".join(lines), **style)
    place = 1 - 0.6 * BAR / whole[0], below / whole[1], 0.15 * BAR / whole[0], 1 / whole[1]
    figure.colorbar(image, cax=figure.add_axes(place)).ax.tick_params(labelsize=LABEL)
    return figure


def _label(panels: Any, rows: Labels, columns: Labels, families: list[str]) -> None:
    """Label the outer panels, since labels of all would take most of the time to draw."""
    style = {"fontfamily": families, "fontsize": LABEL, "parse_math": False}
    for axes in panels[:, 0]:
        axes.set_yticks(*rows, **style)
    for axes in panels[-1]:
        axes.set_xticks(*columns, **style)
        for label in axes.get_xticklabels():
            label.set_rotation(90 if len(label.get_text()) > 2 else 0)


def room(labels: list[str]) -> float:
    """The inches that labels take beside or below a panel."""
    return GAP + 0.12 * max(map(len, labels))


def side(panels: int, tokens: int) -> float:
    """The inches of panels that stand in a row and have so many tokens each."""
    return min(LARGEST, panels * max(SMALLEST, PITCH * tokens))


def labels(tokens: Sequence[str], inches: float) -> Labels:
    """The labels that have room on a panel's side of some inches."""
    step = math.ceil(len(tokens) * LABEL / 72 / inches)
    places = list(range(0, len(tokens), step))
    return places, [shortened(tokens[place]) for place in places]


def shortened(text: str) -> str:
    """The beginning of a text that is too long for a label."""
    most = LONGEST_LABEL
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
