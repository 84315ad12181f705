"""Batches that are searched side by side on the cores of a processor, each by a thread of its own.

What several cores do together for one batch they do faster apart for several: a step of a search
has many small operations, and at the end of each of them the cores wait for one another.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TypeVar

from transformer_spec.memory import available

T = TypeVar("T")
R = TypeVar("R")

MOST = 8  # threads, as Python runs in one at a time; measured on two cores alone
STOPPED: ContextVar[threading.Event | None] = ContextVar("STOPPED", default=None)


class Stopped(Exception):
    """Nobody waits for what this thread was searching for."""


def whole(count: int) -> contextlib.AbstractContextManager[None]:
    """A block that has all that there is."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Workers:
    """At most so many threads; in ``share(count)`` a thread is one of ``count`` that compute.

    ``itemsize`` are the bytes of a number of the model.
    """

    most: int = 1
    share: Callable[[int], contextlib.AbstractContextManager[None]] = whole
    itemsize: int = 4

    def affordable(self, needed: int) -> Workers:
        """No more threads than find ``needed`` bytes each in half of the memory that is free."""
        room = available() // 2 // max(needed, 1)
        return replace(self, most=max(1, min(self.most, room)))

    def map(self, work: Callable[[T], R], tasks: Sequence[T]) -> Generator[R, None, None]:
        """``map(work, tasks)``, side by side; an error of one is raised, and the others stop.

        Those that are left stop too when the generator is closed.
        """
        count = min(self.most, len(tasks))
        if count < 2:
            yield from map(work, tasks)
            return
        stopped = threading.Event()

        def shared(task: T) -> R:
            STOPPED.set(stopped)
            check_wanted()
            with self.share(count):
                return work(task)

        pool = ThreadPoolExecutor(count, "search")
        try:
            yield from pool.map(shared, tasks)
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)


ONE_WORKER = Workers()


def check_wanted() -> None:
    """Raise ``Stopped`` in a thread whose results nobody waits for any more."""
    stopped = STOPPED.get()
    if stopped is not None and stopped.is_set():
        raise Stopped
