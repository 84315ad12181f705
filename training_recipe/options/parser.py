"""Command lines of which a mistake is one message, and which name the flag that was meant."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from training_recipe.options.invocation import as_called
from training_recipe.options.usual_names import meant
from transformer_spec import UserError
from transformer_spec.paths import at_home


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of 100 columns, texts beside their flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)


def _path(text: str) -> Path:
    """A path; an empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("'' is no path; the current folder is .")
    return Path(at_home(text))


class Parser(argparse.ArgumentParser):
    """A mistake is a UserError instead of the end of the process."""

    given: tuple[str, ...] = ()

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("type", Path, _path)

    def parse_known_args(self, args=None, namespace=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """As argparse does; the words are kept for what ``error`` says."""
        self.given = tuple(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def parse_args(self, args=None, namespace=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """As argparse does; beside an unknown flag, words after it are not called unknown."""
        return self._all_known(*self.parse_known_args(args, namespace))

    def parse_intermixed_args(self, args=None, namespace=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """The same, of flags between the words."""
        return self._all_known(*self.parse_known_intermixed_args(args, namespace))

    def _all_known(self, found: argparse.Namespace, left: list[str]) -> argparse.Namespace:
        if left:
            flags = [word for word in left if word.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(flags or left)}")
        return found

    def format_usage(self) -> str:
        return as_called(super().format_usage())

    def format_help(self) -> str:
        return as_called(super().format_help())

    def error(self, message: str) -> NoReturn:
        """Raise a UserError; of unknown flags it says what they are called here."""
        hints = ""
        if message.startswith(("unrecognized arguments", "the following arguments are required")):
            hints = "".join(map(self._hint, dict.fromkeys(self.given)))
        raise UserError(message + hints if hints else f"{message}; see --help")

    def _hint(self, word: str) -> str:
        flag, known = word.split("=")[0], self._option_string_actions
        near = meant(flag, known) if flag[:1] == "-" and flag not in known else ""
        return near.replace("; ", f"; for {flag} ", 1)
