"""The picture of a training comparison: both losses, and what lies between the two sides."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.training.steps import Curves, Step
from training_recipe.files.writing import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TORCH, JAX = "#c44e52", "#1b3a6b"
COLOURS = {"float64": "#2f6f4f", "float32": "#dd8452"}
PANELS = {
    "loss": "difference of the loss per token (steps without any are left out)",
    "gradient_norm": "difference of the gradient norm (likewise)",
    "weight": "largest difference of a weight (dashed: relative)",
}


def draw(curves: Curves, most: float, title: str, path: Path) -> None:
    """Write the PNG; ``curves`` are by number format, ``most`` bounds float64 losses."""
    figure = _figure(curves, most, title)
    replace_file(path, lambda partial: figure.savefig(partial, format="png", dpi=110))


def _figure(curves: Curves, most: float, title: str) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 11), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(4, 1, sharex=True, height_ratios=[1.4, 1, 1, 1])
    _losses(panels[0], curves)
    for panel, (of, label) in zip(panels[1:], PANELS.items(), strict=True):
        _differences(panel, curves, of, label)
    panels[1].axhline(most, color="black", linestyle=":", label=f"float64 bound {most:g}")
    panels[1].legend(fontsize=9)
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in panels:
        panel.grid(alpha=0.3)
    return figure


def _losses(panel: Axes, curves: Curves) -> None:
    dtype, curve = next(iter(curves.items()))
    steps = [s.step for s in curve]
    wide: dict[str, Any] = {"linewidth": 5, "alpha": 0.4, "marker": "o" if len(steps) == 1 else ""}
    narrow: dict[str, Any] = {"linewidth": 1.2, "linestyle": "--"}
    panel.plot(steps, [s.loss.torch for s in curve], label="PyTorch", color=TORCH, **wide)
    panel.plot(steps, [s.loss.jax for s in curve], label="JAX", color=JAX, **narrow)
    panel.set_title(f"loss per target token (nats), {dtype}")
    panel.legend(fontsize=9)


def _differences(panel: Axes, curves: Curves, of: str, label: str) -> None:
    for dtype, curve in curves.items():
        style: dict[str, Any] = {"color": COLOURS[dtype], "marker": "." if len(curve) < 30 else ""}
        panel.plot(*_above_zero(curve, of), label=dtype, **style)
        if of == "weight":
            panel.plot(*_above_zero(curve, "weight_relative"), linestyle="--", **style)
    panel.set_yscale("log")
    panel.set_title(label)
    panel.legend(fontsize=9)


def _above_zero(curve: list[Step], of: str) -> tuple[list[int], list[float]]:
    """Steps and differences, without those that a logarithm cannot show."""
    found = [(s.step, s.difference(of)) for s in curve]
    shown = [(step, apart) for step, apart in found if 0 < apart < math.inf]
    return [step for step, _ in shown], [apart for _, apart in shown]
