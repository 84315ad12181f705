"""``python -m parity verify FOLDER``: whether a certificate still holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from convert.commands.source import size
from parity.certificates.card import write_card
from parity.certificates.certificate import CERTIFICATE, read_certificate
from parity.certificates.verification import (
    DIFFERS,
    CheckedRow,
    Rerun,
    Verify,
    compare_again,
    verify,
)
from parity.commands.printing import progress
from parity.comparison.report import json_of
from training_recipe.options.parser import Parser
from transformer_spec.door import exit_status
from transformer_spec.errors import printable

EPILOG = """exit status:
  0    everything asked for is as certified, and what is certified is PASS
  1    a file or a row differs, or what is certified is FAIL
  2    a mistake in what was given
  3    what could be verified is as certified, but A is not there to be compared again, A is
       code that --a does not name, or memory does not suffice for the gradients"""


def main(arguments: Sequence[str], rerun: Rerun | None = None) -> int:
    """The exit status that --help tells; ``rerun(a, b, settings)`` gives a report."""
    return exit_status(
        lambda: run(parser().parse_args(arguments), rerun), "stopped before everything was verified"
    )


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="python -m parity verify",
        description=f"Check the files of a folder and compute again what its {CERTIFICATE} says.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("folder", type=Path, metavar="FOLDER", help=f"has {CERTIFICATE}")
    top.add_argument("--quick", action="store_true", help="the files alone, no comparison")
    top.add_argument(
        "--a",
        metavar="A",
        help="where A is now (default: as it was "
        "given; module:FILE.py:FUNCTION is code, and run only where it is named here)",
    )
    top.add_argument("--max-ram", type=size, metavar="SIZE",
        help="most memory to use, as in 8GB (default: most of what is free)")  # fmt: skip
    top.add_argument("--full", action="store_true", help="show every row, not those alone that "
        "do not hold")  # fmt: skip
    top.add_argument("--card", action="store_true", help="write PARITY.md, for a model page")
    top.add_argument("--json", action="store_true", help="print JSON")
    return top


def run(options: argparse.Namespace, rerun: Rerun | None) -> int:
    request = Verify(options.folder, options.a, options.quick, options.max_ram)
    with progress() as say:
        found = verify(
            request, rerun or (lambda a, b, settings: compare_again(a, b, settings, say))
        )
    lines = [*found.notes, *row_lines(found.rows or (), options.full)]
    if options.card and found.status != DIFFERS:
        lines.append(f"card: {write_card(options.folder, read_certificate(options.folder))}")
    print(
        json_of(found.to_dict()) if options.json else printable("\n".join([*lines, found.verdict]))
    )
    return found.status


def row_lines(rows: Iterable[CheckedRow], full: bool) -> list[str]:
    """A table of the rows that do not hold, or of all; nothing where there is none to show."""
    shown = [row for row in rows if full or not row.holds]
    if not shown:
        return []
    width = max(len(row.part) for row in shown)
    lines = [f"{'float64 difference of':<{width}}  {'certified':>9}  {'now':>9}  {'bound':>9}"]
    for row in shown:
        numbers = "  ".join(map(number, (row.certified, row.now, row.bound)))
        lines.append(f"{row.part:<{width}}  {numbers}  {word(row)}")
    return lines


def number(value: float | None) -> str:
    return f"{'-':>9}" if value is None else f"{value:>9.3e}"


def word(row: CheckedRow) -> str:
    """What became of a row."""
    if row.holds:
        return "within its bound"
    if row.holds is None:
        return "not computed: not enough memory"
    if row.now is None:
        return "FAIL: not computed now"
    return "FAIL: not certified" if row.certified is None else "FAIL: beyond its bound"
