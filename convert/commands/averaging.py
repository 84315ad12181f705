"""``python -m convert average``: the mean of a run's last checkpoints as a model of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from convert.conversion.averaging import LEAST, MOST, AverageRequest, average
from training_recipe.options.parser import Parser

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
        metavar="N",
        help=f"how many checkpoints, at least {LEAST}: the newest, and before it those of "
        f"--save-every [all that the run has kept, at most {MOST}]",
    )
    return result


def run(words: Sequence[str]) -> str:
    """Do what the words say; the line to print."""
    options = parser().parse_args(words)
    return average(AverageRequest(options.source, options.dest, options.last)).text
