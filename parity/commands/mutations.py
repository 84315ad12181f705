"""``python -m parity mutations``: what every planted bug does to the logits, and who sees it."""

import argparse
from dataclasses import asdict

from parity.commands.printing import said, silent
from parity.comparison.report import json_of
from parity.frameworks import both_frameworks
from training_recipe.options.parser import Parser
from transformer_spec.door import exit_status


def main(arguments: list[str]) -> int:
    """0 where float64 sees every bug, 1 where it does not, 2 for a user's mistake."""
    return exit_status(
        lambda: run(parser().parse_args(arguments)), "stopped before every bug was planted"
    )


def parser() -> argparse.ArgumentParser:
    result = Parser(
        prog="python -m parity mutations",
        description="What every planted bug does to the logits, and who sees it: about a minute.",
    )
    result.add_argument("--layers", type=int, default=6, help="layers of each half [6]")
    result.add_argument("--width", type=int, default=512, help="width D; D/64 heads [512]")
    result.add_argument("--vocabulary", type=int, default=8000, help="words [8000]")
    result.add_argument("--json", action="store_true", help="print the rows as JSON")
    return result


def run(options: argparse.Namespace) -> int:
    with both_frameworks():
        from parity.mutations.measurement import HEADING, Size, in_words, plant, total, verdict
    say = silent if options.json else said
    say(HEADING)
    rows = []
    for row in plant(Size(options.layers, options.width, options.vocabulary)):
        say(in_words(row))
        rows.append(row)
    say(f"{total(rows)}\n\n{verdict(rows)}")
    if options.json:
        print(json_of([asdict(row) for row in rows]))
    return 0 if all(row.seen for row in rows) else 1
