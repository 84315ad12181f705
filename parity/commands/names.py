"""``python -m parity names``: the table under which a checkpoint is what its module computes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.commands.compare import add_module_timeout
from parity.commands.printing import progress, seconds_of_code
from parity.forward.ids import ANYWHERE
from parity.frameworks import both_frameworks, exact_numbers
from parity.sides.given import MODULE
from training_recipe.options.parser import Parser
from transformer_spec import Faults, UserError
from transformer_spec.door import exit_status
from transformer_spec.errors import printable

if TYPE_CHECKING:
    from parity.naming.search import Found

DESCRIPTION = """Search the table of names of a module of your own: which tensor is which, and what
the module computes. The float64 comparison with the module itself is the judge; names are not
read, but for the numbers of layers. FUNCTION() of FILE.py returns the model as for
module:FILE.py:FUNCTION; the file's code runs."""


def main(arguments: Sequence[str]) -> int:
    """0 where a table is found, 2 where none is or for a user's mistake."""
    return exit_status(
        lambda: run(parser().parse_args(arguments)), "stopped before a table was found"
    )


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="python -m parity names",
        usage="python -m parity names CHECKPOINT --module FILE.py:FUNCTION [options]",
        description=DESCRIPTION,
        allow_abbrev=False,
    )
    add = top.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="the module's state, in any container")
    add("--module", required=True, metavar="FILE.py:FUNCTION", help="what makes the module")
    add("--num-heads", type=int, metavar="N", help="attention heads (default: searched)")
    add("--pad-id", type=int, metavar="N", help="padding token (default: searched among 0 to 3)")
    add("--key", help="where the weights are in a file that holds more, as in a conversion")
    add(
        "--output", type=Path, metavar="FILE.toml", help="where to write the table (default: print)"
    )
    add("--json", action="store_true", help="print JSON")
    add_module_timeout(top)
    return top


def run(options: argparse.Namespace) -> int:
    check(options)
    with both_frameworks():
        from parity.naming.checkpoint import search_checkpoint
    exact_numbers()
    given = MODULE + options.module.removeprefix(MODULE)
    with progress() as say, seconds_of_code(options.module_timeout):
        found = search_checkpoint(
            options.checkpoint, given, options.key, options.num_heads, options.pad_id, say
        )
    if options.output is not None:
        write(found.proposal.text, options.output)
    print(json.dumps(as_json(found), indent=2) if options.json else as_text(found, options))
    return 0


def check(options: argparse.Namespace) -> None:
    """Every fault of what is asked for at once, before the user's code runs."""
    faults = Faults()
    exists = options.checkpoint.exists()
    faults.require(exists, f"{options.checkpoint} does not exist; give a file or folder of weights")
    for flag, least in (("num_heads", 1), ("pad_id", 0)):
        value, name = getattr(options, flag), f"--{flag.replace('_', '-')}"
        faults.require(value is None or value >= least, f"{name} is {value}; the least is {least}")
    if options.output is not None:
        told = f"--output {options.output} is there already; give another place"
        faults.require(not options.output.exists(), told)
        parent = options.output.parent
        faults.require(parent.is_dir(), f"--output {options.output}: there is no folder {parent}")
    faults.raise_if_any("cannot search")


def write(text: str, path: Path) -> None:
    """Write a new file; one that has come to be there meanwhile is kept."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def as_text(found: Found, options: argparse.Namespace) -> str:
    """The table, or where it is, with the next commands."""
    if options.output is None:
        return printable_lines(found.proposal.text.rstrip())
    names = f"--names {options.output} {found.flags}".rstrip()
    padding = found.report.settings.padding
    only = "" if padding == ANYWHERE else f", with padding {padding} tokens alone"
    return printable(
        f"{options.output}: found by comparison, {found.evaluations:,} evaluations in "
        f"{found.seconds:.0f} s; {found.report.verdict}{only}\n"
        f"next: python -m convert {options.checkpoint} CONVERTED --to flax {names}"
    )


def printable_lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def as_json(found: Found) -> dict[str, Any]:
    agreement = found.report.agreement
    return {
        "table": found.proposal.text,
        "content": dict(found.proposal.content),
        "seconds": found.seconds,
        "evaluations": found.evaluations,
        "largest_difference": agreement.max_abs,
        "verdict": found.report.verdict,
    }
