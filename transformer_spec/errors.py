"""Errors that a user's mistake causes: one clear message, never a traceback."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence

MOST_OF_A_KIND, SHOWN_OF_A_KIND = 6, 3


class UserError(ValueError):
    """A user's mistake; the message says what was given, what is allowed and what to do.

    ``faults`` lists what is wrong, an entry for each mistake; the message holds them all, of many
    of a kind the first ones and their number.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = list(faults) or [message]


class ConfigError(UserError):
    """A model config that cannot describe a Transformer, with all its faults in one message."""


class Faults:
    """Collects faults so that all of them are reported at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.kinds: list[str] = []

    def add(self, message: str, kind: str = "") -> None:
        """One more fault; of many of a ``kind`` ("are missing") the first are shown and counted."""
        self.messages.append(message)
        self.kinds.append(kind)

    def take(self, error: UserError) -> None:
        """The faults of an error, an entry each."""
        for fault in error.faults:
            self.add(fault)

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            self.add(message)

    def raise_if_any(
        self, heading: str, error: type[UserError] = UserError, advice: str = ""
    ) -> None:
        """Raise one ``error`` that lists every fault, then ``advice``; nothing where none is."""
        if not self.messages:
            return
        count = f" {len(self.messages)} faults\n  " if len(self.messages) > 1 else " "
        end = f"\n{advice}" if advice else ""
        raise error(f"{heading}:{count}" + "\n  ".join(self._lines()) + end, self.messages)

    def _lines(self) -> list[str]:
        """The messages, those of a kind together where there are too many to be read."""
        by_kind: dict[str, list[str]] = {}
        for number, (message, kind) in enumerate(zip(self.messages, self.kinds, strict=True)):
            by_kind.setdefault(kind or f"{number}", []).append(message)
        lines: list[str] = []
        for kind, messages in by_kind.items():
            many = len(messages) > MOST_OF_A_KIND
            lines += messages[:SHOWN_OF_A_KIND] if many else messages
            lines += [f"and {len(messages) - SHOWN_OF_A_KIND:,} more {kind}"] if many else []
        return lines


def closest(given: str, allowed: Iterable[str]) -> str:
    """``; did you mean X?`` for the nearest allowed name, or nothing.

    Dashes at the front bring nothing nearer.
    """
    names = {name.lstrip("-"): name for name in allowed}
    near = difflib.get_close_matches(given.lstrip("-"), names, n=1, cutoff=0.65)
    return f"; did you mean {names[near[0]]}?" if near else ""


def exit_status(command: Callable[[], int | None], when_interrupted: str) -> int:
    """Run a command; its status (None is 0), 2 for a user's mistake and 130 for Ctrl-C.

    Each is said on stderr in one message; memory that does not suffice counts as a mistake. A
    reader that takes no more, as ``head`` does, ends the command with 1 and silently; every other
    exception goes through.
    """
    try:
        status = command() or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"error: memory does not suffice: {error or 'none is left'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(when_interrupted, file=sys.stderr)
        return 130
    except BrokenPipeError:
        close_standard_output()
        return 1


def close_standard_output() -> None:
    """Drop what could not be written, which Python would try, and complain of, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
