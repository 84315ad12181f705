"""``python -m convert inspect``: what a checkpoint is, from its headers alone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from convert.commands.source import add_source_flags, source_fields
from convert.conversion.inspection import inspect
from convert.conversion.request import SourceRequest
from training_recipe.options.parser import Parser


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    result = Parser(
        prog="python -m convert inspect",
        description="What a checkpoint is, from its headers alone; no tensor is read.",
        allow_abbrev=False,
    )
    result.add_argument("source", type=Path, metavar="CHECKPOINT", help="as SOURCE of a conversion")
    result.add_argument("--json", action="store_true", help="print JSON")
    add_source_flags(result)
    return result


def source_request(words: Sequence[str]) -> SourceRequest:
    """A checkpoint and the flags after it, as the command takes them."""
    return SourceRequest(**source_fields(parser().parse_args(words)))


def run(words: Sequence[str]) -> str:
    """Do what the words say; the text, or the JSON, to print."""
    options = parser().parse_args(words)
    found = inspect(SourceRequest(**source_fields(options)))
    return json.dumps(found.to_json(), indent=2) if options.json else found.text
