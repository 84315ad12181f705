"""``python -m parity twins``: the table of differences between the twins, on this machine."""

import argparse

from parity.commands.printing import said, silent
from parity.comparison.report import json_of
from parity.frameworks import both_frameworks
from training_recipe.options.parser import Parser
from transformer_spec.door import exit_status


def main(arguments: list[str]) -> int:
    """Print the table; 0 where every bound holds, 1 where one does not, 2 for a user's mistake."""
    return exit_status(
        lambda: run(parser().parse_args(arguments)), "stopped before the table was complete"
    )


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="python -m parity twins",
        description="Compare the PyTorch and the Flax twin, by every bound: a few minutes.",
    )
    top.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="where both twins compute"
    )
    top.add_argument("--json", action="store_true", help="print the rows as JSON")
    return top


def run(options: argparse.Namespace) -> int:
    # The frameworks take seconds to import, which --help must not wait for.
    with both_frameworks():
        from parity.twins.table import HEADING, in_words, table_rows, verdict_of
    say = silent if options.json else said
    say(HEADING)
    rows = []
    for row in table_rows(options.device):
        say(in_words(row))
        rows.append(row)
    say(verdict_of(rows))
    if options.json:
        print(json_of([row._asdict() | {"holds": row.holds} for row in rows]))
    return 0 if all(row.holds for row in rows) else 1
