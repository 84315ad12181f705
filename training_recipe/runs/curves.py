"""curves.png: loss, score, learning rate and gradient norm of a run over its steps."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_recipe.files.writing import replace_file
from training_recipe.fonts import families_for
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.metrics import Record, read_metrics
from transformer_spec.errors import printable_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, VALID = "#4c72b0", "#c44e52"
SCORE_COLOURS = ("#c44e52", "#55a868", "#8172b3", "#937860")


def draw_curves(run: RunFolder) -> None:
    """Draw curves.png from metrics.jsonl; nothing is drawn before the first line."""
    records = list(read_metrics(run.metrics))
    train = [record for record in records if record["kind"] == "train"]
    valid = [record for record in records if record["kind"] == "evaluation"]
    if train or valid:
        title = printable_name(Path(os.path.realpath(run.path)).name)
        with warnings.catch_warnings():  # of letters in the title that no font here has
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure = _figure(title, train, valid)
            replace_file(run.curves, lambda partial: _save(figure, partial))


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, format="png", dpi=110)


def _figure(title: str, train: list[Record], valid: list[Record]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, parse_math=False, family=families_for(title)[0])
    axes = figure.subplots(2, 2).flatten()
    _loss(axes[0], train, valid)
    _scores(axes[1], valid)
    _line(axes[2], train, "learning_rate", "learning rate", TRAIN)
    _line(axes[3], train, "gradient_norm", "gradient norm before clipping", TRAIN)
    for panel in axes:
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    return figure


def _loss(panel: Axes, train: list[Record], valid: list[Record]) -> None:
    _line(panel, train, "loss", "training objective", TRAIN)
    _line(panel, valid, "loss", "validation, cross-entropy", VALID, marker="o")
    panel.set_title("loss per target token (nats)")
    if train or valid:
        panel.legend(fontsize=9)


def _scores(panel: Axes, valid: list[Record]) -> None:
    names = list(dict.fromkeys(name for record in valid for name in record.get("scores", {})))
    for name, colour in zip(names, SCORE_COLOURS, strict=False):
        points = [(r["step"], r["scores"][name]) for r in valid if name in r.get("scores", {})]
        panel.plot(*zip(*points, strict=True), label=name, color=colour, marker="o", markersize=3)
    panel.set_title("validation scores" if names else "validation scores: none taken")
    if names:
        panel.legend(fontsize=9)


def _line(
    panel: Axes, records: list[Record], key: str, label: str, colour: str, marker: str = ""
) -> None:
    points = [(record["step"], record[key]) for record in records if key in record]
    if points:
        style = {"marker": marker or ("o" if len(points) == 1 else ""), "markersize": 3}
        panel.plot(*zip(*points, strict=True), label=label, color=colour, **style)
    panel.set_title(label)
