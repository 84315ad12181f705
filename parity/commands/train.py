"""``python -m parity train``: the same training on both backends, compared step by step."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.commands.printing import check_picture
from parity.comparison.report import json_of
from parity.frameworks import both_frameworks
from parity.training.task import Task, check_comparable, find_task, separate
from training_recipe.options.parser import Parser
from training_recipe.runs.record import library_versions
from transformer_spec import UserError
from transformer_spec.errors import Faults, exit_status

if TYPE_CHECKING:
    from parity.training.steps import Curves, Step
    from training_recipe.preparation import Prepared
    from transformer_spec import TransformerConfig

PLOT = "parity_train.png"
FORMAT_VERSION = 1
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
    """Read, train, judge, draw, print."""
    check_options(options)
    task = task_of(options, rest)
    plot = options.plot or task.folder / PLOT
    # The frameworks take seconds to import, which --help and mistakes must not wait for.
    with both_frameworks():
        from parity.training.plot import draw
        from parity.training.steps import bound, judge
    prepared = task.prepare(task.settings)
    config = dataclasses.replace(prepared.config, **task.changes)
    if not options.json:
        print("\n".join([f"{task.what}, seed {task.settings.seed}", *prepared.notes]), flush=True)
    curves = trained(task, config, prepared, options)
    passed, verdict = judge(curves["float64"], bound(config))
    if options.json:
        content = report(task, config, curves) | {"bound": bound(config), "plot": str(plot)}
        print(json_of(content | {"passed": passed, "verdict": verdict}))
    else:
        print("\n".join([*table(curves), *summary(curves), verdict]), flush=True)
    try:
        draw(curves, bound(config), f"{task.what}\n{verdict.partition(';')[0]}", plot)
    except OSError as error:
        raise UserError(f"{plot} cannot be written: {error}; --plot says where to") from None
    if not options.json:
        print(f"plot written to {plot}")
    return 0 if passed else 1


def check_options(options: argparse.Namespace) -> None:
    """Every fault of the command's own flags at once."""
    faults = Faults()
    faults.require(options.steps >= 1, f"--steps {options.steps} is too few; at least 1 is needed")
    rate = options.dropout
    fits = rate is None or 0 <= rate < 1
    faults.require(fits, f"--dropout {rate} is no probability: from 0 to below 1")
    if options.plot is not None:
        check_picture(options.plot, faults)
    faults.raise_if_any("cannot compare")


def task_of(options: argparse.Namespace, rest: list[str]) -> Task:
    """What the arguments ask for; the schedule is as long as the comparison at least."""
    task = find_task(*separate(rest))
    task = task.changed(
        options.dropout,
        steps=max(task.settings.steps, options.steps),
        device=options.device,
        dropout_rng=options.dropout_rng,
        seed=options.seed,
    )
    check_comparable(task.settings, task.rates.values())
    return task


def trained(
    task: Task, config: TransformerConfig, prepared: Prepared, options: argparse.Namespace
) -> Curves:
    """The steps by number format, each with a progress bar; float64 always, for it judges."""
    from tqdm import tqdm

    from parity.training.steps import train_both

    curves = {}
    for dtype in dict.fromkeys(("float64", options.dtype)):
        settings = dataclasses.replace(task.settings, dtype=dtype)
        batches = functools.partial(prepared.plan.batches, count=settings.accumulate)
        steps = train_both(config, settings, batches, options.steps)
        curves[dtype] = list(tqdm(steps, dtype, options.steps, disable=None))
    return curves


def report(task: Task, config: TransformerConfig, curves: Curves) -> dict[str, Any]:
    """Everything as JSON data."""
    from parity.training.steps import plain

    return {
        "format_version": FORMAT_VERSION,
        "what": task.what,
        "device": task.settings.device,
        "config": config.to_dict(),
        "settings": task.settings.to_dict(),
        "versions": library_versions(),
        "curves": {dtype: plain(curve) for dtype, curve in curves.items()},
    }


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
