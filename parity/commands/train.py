"""``python -m parity train``: the same training on both backends, compared step by step."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from parity.commands.printing import check_picture, said, silent
from parity.comparison.report import json_of
from parity.training.comparison import TrainingReport, TrainingRequest, compare_training
from parity.training.task import separate
from training_recipe.options.parser import Parser
from transformer_spec import UserError
from transformer_spec.door import exit_status
from transformer_spec.errors import Faults

if TYPE_CHECKING:
    from parity.training.steps import Curves, Step

PLOT = "parity_train.png"
LINES = 20
EPILOG = """\
SETTINGS is a run folder, its settings.json or a recipe (.toml); without it, train.py's defaults.
A recipe and the defaults can be followed by any setting of train.py, as in --hidden-dim 64.

float64 judges: the losses per token of both sides must agree within 1e-9 at every step, within
1e-8 with dropout; averaged weights (--ema-decay) must be no farther apart than the weights that
they are made of. float32 is shown beside it and not judged, as its rounding grows with every step.

exit status: 0 the same training, 1 not the same, 2 it could not be compared
"""


def main(arguments: list[str] | None = None) -> int:
    """Compare as the arguments say; 0 the same, 1 not the same, 2 for a user's mistake."""
    return exit_status(
        lambda: run(*parser().parse_known_args(arguments)),
        "stopped before the comparison was complete",
    )


def parser() -> argparse.ArgumentParser:
    """The command's own flags; the others are train.py's."""
    made = Parser(
        prog="python -m parity train",
        usage="%(prog)s [SETTINGS] [--steps N] [--SETTING VALUE ...]",
        description="Train on both backends from the same weights and batches, and compare.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--steps", type=int, default=100, metavar="N", help="how many steps are compared [100]")
    add(
        "--dtype",
        choices=("float64", "float32"),
        default="float64",
        help="float32: show what float32 adds, beside float64, which judges [float64]",
    )
    add("--device", choices=("cpu", "gpu"), default="cpu", help="where both compute [cpu]")
    add("--dropout", type=float, metavar="X", help="rate of dropout, instead of the settings'")
    add("--dropout-rng", metavar="portable", help="masks of dropout, instead of the settings'")
    add("--seed", type=int, metavar="N", help="of weights, batches and masks")
    place = f"the picture [{PLOT} in the run folder, else in this one]"
    add("--plot", type=Path, metavar="FILE.png", help=place)
    add("--json", action="store_true", help="print every step as JSON")
    return made


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Flags into a request, one call, what it found."""
    source, flags = separate(rest)
    request = TrainingRequest(
        source,
        tuple(flags),
        options.steps,
        options.dtype,
        options.device,
        options.dropout,
        options.dropout_rng,
        options.seed,
    )
    check(request, options.plot)
    report = compare_training(request, silent if options.json else said, _bar)
    plot = options.plot or report.task.folder / PLOT
    if options.json:
        print(json_of(report.to_dict() | {"plot": str(plot)}))
    else:
        print("\n".join([*table(report.curves), *summary(report.curves)]), flush=True)
    write_plot(report, plot)
    if not options.json:
        print(f"plot written to {plot}\n{report.verdict}")
    return 0 if report.same else 1


def check(request: TrainingRequest, plot: Path | None) -> None:
    """Every fault of the command's own flags at once."""
    faults = Faults()
    request.find_faults(faults)
    if plot is not None:
        check_picture(plot, faults)
    faults.raise_if_any("cannot compare")


def write_plot(report: TrainingReport, plot: Path) -> None:
    """Draw the curves; a file that cannot be written is a UserError."""
    from parity.training.plot import draw

    title = f"{report.task.what}\n{report.verdict.partition(';')[0]}"
    try:
        draw(report.curves, report.bound, title, plot)
    except OSError as error:
        raise UserError(f"{plot} cannot be written: {error}; --plot says where to") from None


def _bar(steps: Iterable[Step], dtype: str, count: int) -> Iterable[Step]:
    from tqdm import tqdm

    return tqdm(steps, dtype, count, disable=None)


def table(curves: Curves) -> list[str]:
    """A line for each step, or for about 20 of them spread evenly; --json has them all."""
    lines = ["", f"{'':8} {'step':>6} {'loss, PyTorch':>14} {'loss, JAX':>14} " + _differences()]
    for dtype, curve in curves.items():
        lines += [f"{dtype:8} {line}" for line in map(_line, _some(curve))]
    return lines


def _differences() -> str:
    heads = ("difference", "gradient norm", "difference", "weights", "relative")
    return " ".join(f"{head:>13}" for head in heads)


def _line(step: Step) -> str:
    apart = step.loss.apart, step.gradient_norm.torch, step.gradient_norm.apart
    numbers = " ".join(f"{x:13.3g}" for x in (*apart, step.weight, step.weight_relative))
    return f"{step.step:6} {step.loss.torch:14.10f} {step.loss.jax:14.10f} {numbers}"


def _some(curve: list[Step]) -> Iterable[Step]:
    every = -(-len(curve) // LINES)
    return [s for s in curve if s.step % every == 0 or s in (curve[0], curve[-1])]


def summary(curves: Curves) -> list[str]:
    """The largest differences of each number format, with their steps."""
    from parity.training.steps import largest, measured

    lines = [""]
    for dtype, curve in curves.items():
        found = [(of, *largest(curve, of)) for of in measured(curve)]
        parts = [f"{of.replace('_', ' ')} {most:.2g} (step {step})" for of, most, step in found]
        judged = "" if dtype == "float64" else ", not judged"
        lines.append(f"{dtype}, largest difference of{judged}: {', '.join(parts)}")
    return lines
