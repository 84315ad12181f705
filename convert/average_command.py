"""``python -m convert average``: the mean of a run's last checkpoints as a model of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from convert.averaging import write_average
from convert.conversion import carry, check_destination
from convert.formats.atomic import written_aside
from training_recipe.options.parser import Parser
from training_recipe.runs.averages import averaged_steps
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.record import RunRecord
from transformer_spec import TransformerConfig, UserError

AVERAGE = "average"
DESCRIPTION = """Write the mean of the weights of a run's last checkpoints as a model of its own,
which translate.py, convert and parity read. Sums are in float64, and one weight is in memory at a
time. Nothing of the run is changed."""


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    result = Parser(prog="python -m convert average", description=DESCRIPTION, allow_abbrev=False)
    result.add_argument("source", type=Path, metavar="RUN", help="run folder, of either backend")
    result.add_argument("dest", type=Path, metavar="DEST", help="new folder; it must not exist")
    result.add_argument(
        "--last",
        type=int,
        default=10,
        metavar="N",
        help="how many checkpoints: the newest, and before it those of --save-every [10]",
    )
    return result


def average(options: argparse.Namespace) -> str:
    """Do what the options say; the line to print."""
    run = RunFolder.open(options.source)
    check_destination(options.source, options.dest)
    config, steps = TransformerConfig.load(run.config), last_steps(run, options.last)
    options.dest.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(options.dest) as folder:
        folder.mkdir()
        write_average([run.checkpoint(step) for step in steps], config, folder)
        config.save(folder / run.config.name)
        carry(run.path, folder)
    listed = ", ".join(map(str, steps))
    return f"wrote the mean of {len(steps)} checkpoints (steps {listed}) to {options.dest}"


def last_steps(run: RunFolder, count: int) -> list[int]:
    """The steps of the checkpoints to average; a UserError where there are fewer than ``count``."""
    every = RunRecord.load(run.settings).settings.save_every
    steps = averaged_steps(run.steps(), count, every)
    if count < 1 or len(steps) < count:
        there = averaged_steps(run.steps(), len(run.steps()), every)
        listed = ", ".join(map(str, there)) or "none"
        raise UserError(
            f"--last {count}: {run.path} has {len(there)} checkpoints to average (steps {listed}); "
            "ask for at least 1 and no more than these; --keep and --average keep more"
        )
    return steps
