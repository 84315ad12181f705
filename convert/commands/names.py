"""``python -m convert names``: the table of names that a checkpoint has, or a proposed one."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from convert.commands.source import add_source_flags, source_fields
from convert.conversion.request import SourceRequest
from convert.conversion.sources.proposal import find_naming
from training_recipe.options.parser import Parser

DESCRIPTION = """Propose a table of names for a checkpoint of any encoder-decoder Transformer, from
names, shapes and order in its headers alone. Lines that are guesses say so; nothing is converted.
docs/your-own-model.md goes the whole way."""

MODULE = "--module"
SEARCH = ("-m", "parity", "names")


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    result = Parser(prog="python -m convert names", description=DESCRIPTION, allow_abbrev=False)
    add = result.add_argument
    add("source", type=Path, metavar="CHECKPOINT", help="as SOURCE of a conversion")
    add("--output", type=Path, metavar="FILE", help="write the table to this new file")
    add(
        MODULE,
        metavar="FILE.py:FUNCTION",
        help="search instead, and run this code: what FUNCTION() makes is the judge "
        "(python -m parity names --help)",
    )
    add_source_flags(result)
    return result


def run(words: Sequence[str]) -> str:
    """Do what the words say; the table, or what was written, to print.

    With ``--module`` the comparison searches: it sees both frameworks, and ends the program.
    """
    if any(word == MODULE or word.startswith(f"{MODULE}=") for word in words):
        raise SystemExit(subprocess.call([sys.executable, *SEARCH, *words]))
    options = parser().parse_args(words)
    found = find_naming(SourceRequest(**source_fields(options)), options.output)
    if options.output is None or found.text is None:
        return found.text.rstrip("\n") if found.text else found.told
    return f"{found.told.rstrip()}\n{options.output} is written"
