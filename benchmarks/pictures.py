"""The results of benchmarks/train.py and benchmarks/translate.py as pictures for the README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS, OTHERS = "#2a6fb0", "#b8bec6"


def draw_training(results: dict[str, Any], path: Path) -> None:
    """Target tokens per second and peak memory of each contender, a row of bars for each size."""
    rows = [(found["size"], found["contenders"]) for found in results["compared"]]
    panels = [
        [(f"{size}: target tokens/s", rates(found, "target_tokens", 1)),
         (f"{size}: peak memory, MiB", rates(found, "peak_bytes", 2**20))]
        for size, found in rows
    ]  # fmt: skip
    _draw(panels, path)


def draw_translation(results: dict[str, Any], path: Path) -> None:
    """Output tokens per second of each contender."""
    found = results["contenders"]
    _draw([[("output tokens/s, beam 5", rates(found, "output_tokens", 1))]], path)


def draw_transcription(results: dict[str, Any], path: Path) -> None:
    """Seconds of sound a second of each contender."""
    found = results["contenders"]
    _draw([[("seconds of sound a second", rates(found, "audio_seconds", 1))]], path)


def rates(found: dict[str, Any], key: str, unit: float) -> dict[str, float]:
    """A number of each contender, in the order in which they are compared."""
    return {name: numbers[key] / unit for name, numbers in found.items()}


def _draw(panels: list[list[tuple[str, dict[str, float]]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bars = max(len(numbers) for row in panels for _, numbers in row)
    size = (4.6 * len(panels[0]), (0.3 * bars + 0.6) * len(panels))
    figure, axes = pyplot.subplots(len(panels), len(panels[0]), figsize=size, squeeze=False)
    for row, drawn in zip(axes, panels, strict=True):
        for axis, (title, numbers) in zip(row, drawn, strict=True):
            colours = [OURS if name.startswith("twinformer") else OTHERS for name in numbers]
            found = axis.barh(list(numbers), list(numbers.values()), color=colours)
            axis.bar_label(found, fmt="{:,.0f}", padding=3, fontsize=8)
            axis.set_title(title, fontsize=9, loc="left")
            axis.invert_yaxis()
            axis.margins(x=0.18)
            axis.tick_params(labelsize=8)
            axis.xaxis.set_visible(False)
            axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
