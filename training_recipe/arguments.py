"""Command lines of which a mistake is one message, and which name the flag that was meant."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from typing import NoReturn

from transformer_spec import UserError


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of 100 columns, texts beside their flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


class Parser(argparse.ArgumentParser):
    """A mistake is a UserError instead of the end of the process."""

    def error(self, message: str) -> NoReturn:
        """Raise a UserError; of an unknown flag it names the nearest there is."""
        said, _, words = message.partition("unrecognized arguments: ")
        flags = [word.split("=")[0] for word in words.split() if not said and word[:1] == "-"]
        hints = [closest(flag, self._option_string_actions) for flag in flags]
        raise UserError(message + ("".join(hints) or "; see --help"))


def closest(given: str, allowed: Iterable[str]) -> str:
    """``; did you mean X?`` for the nearest allowed name, or nothing."""
    near = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
