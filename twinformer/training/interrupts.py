"""Ctrl-C and SIGTERM ask the loop to stop after its step; asking twice leaves at once.

Where several processes train, a signal to one of them stops all after the same step.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from training_recipe.distributed.processes import ALONE, Processes, Vote

ASKING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The run was asked to stop; ``status`` is the exit status that says so to the shell."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.status = 128 + number


class Interrupts:
    """While entered, remembers a signal instead of dying from it."""

    def __init__(self, processes: Processes = ALONE.processes) -> None:
        self.number: int | None = None
        self._vote = Vote(processes)
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python lets no other thread hear signals
        self._before = {number: signal.signal(number, self._remember) for number in ASKING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _remember(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; the system's own handling, which needs no Python, meets the next."""
        self.number = number
        for each in ASKING:
            signal.signal(each, signal.SIG_DFL)
        os.write(2, b"\nstopping after this step; once more to leave at once\n")

    def check(self) -> None:
        """Raise Interrupted if a signal came, in another process until the check before this."""
        number = self._vote.of_all(self.number or 0)
        if number:
            raise Interrupted(number)
