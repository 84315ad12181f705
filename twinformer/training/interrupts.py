"""Ctrl-C, SIGTERM and SIGHUP ask the loop to stop after its step; asking twice leaves at once.

So does a reader of what is said that goes away, as ``head`` does. Where several processes train,
all stop after the same step. A terminal that closes says so more than once, by the shell and by the
system: SIGHUP only ever asks, and where it was ignored before, as by ``nohup``, it stays so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType

from training_recipe.distributed.processes import ALONE, Processes, Vote
from transformer_spec.door import ASKING, HANGUPS

NO_READER = 1 << 16  # in place of a signal's number, of which the largest is heeded


class Interrupted(Exception):
    """The run was asked to stop; ``status`` is the exit status that says so to the shell."""

    def __init__(self, number: int) -> None:
        unread = number == NO_READER
        by = "a reader that takes no more" if unread else signal.Signals(number).name
        super().__init__(f"stopped by {by}")
        self.status = 1 if unread else 128 + number


class Interrupts:
    """While entered, remembers a signal instead of dying from it."""

    def __init__(self, processes: Processes = ALONE.processes) -> None:
        self.number: int | None = None
        self._vote = Vote(processes)
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python lets no other thread hear signals
        ignored = [n for n in HANGUPS if signal.getsignal(n) == signal.SIG_IGN]
        heard = [number for number in ASKING if number not in ignored]
        self._before = {number: signal.signal(number, self._remember) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; the system's own handling, which needs no Python, meets the next."""
        self.number = number
        for each in self._before:
            signal.signal(each, signal.SIG_IGN if each in HANGUPS else signal.SIG_DFL)
        with contextlib.suppress(OSError):  # Ctrl-C ends what reads it too
            os.write(2, b"\nstopping after this step; once more to leave at once\n")

    def unread(self) -> None:
        """Ask to stop because nobody reads what is said."""
        self.number = self.number or NO_READER

    def check(self) -> None:
        """Raise Interrupted if a signal came, in another process until the check before this."""
        number = self._vote.of_all(self.number or 0)
        if number:
            raise Interrupted(number)
