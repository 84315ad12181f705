"""Command lines of which a mistake is one message, and which name the flag that was meant."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable
from typing import NoReturn

from transformer_spec import UserError


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of 100 columns, texts beside their flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


class Parser(argparse.ArgumentParser):
    """A mistake is a UserError instead of the end of the process."""

    given: tuple[str, ...] = ()

    def parse_known_args(self, args=None, namespace=None):
        """As argparse does; the words are kept for what ``error`` says."""
        self.given = tuple(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise a UserError; of unknown flags it names the nearest there are."""
        if message.startswith(("unrecognized arguments", "the following arguments are required")):
            message += "".join(map(self._hint, dict.fromkeys(self.given)))
        raise UserError(message if "did you mean" in message else f"{message}; see --help")

    def _hint(self, word: str) -> str:
        flag, known = word.split("=")[0], self._option_string_actions
        near = closest(flag, known) if flag[:1] == "-" and flag not in known else ""
        return near.replace("; did", f"; for {flag} did")


def closest(given: str, allowed: Iterable[str]) -> str:
    """``; did you mean X?`` for the nearest allowed name, or nothing."""
    near = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
