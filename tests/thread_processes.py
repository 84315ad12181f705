"""Processes that are threads of this one, for tests of what several processes say to each other."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from training_recipe.distributed.processes import Processes

PATIENCE = 30  # seconds after which a thread that waits for the others gives up


class Meeting:
    """Where so many threads leave values for each other; ``said`` keeps all that was left."""

    def __init__(self, count: int) -> None:
        self.values: list[Any] = [None] * count
        self.barrier = threading.Barrier(count, timeout=PATIENCE)
        self.said: list[list[Any]] = []


class ThreadProcesses(Processes):
    """One thread of a meeting."""

    def __init__(self, meeting: Meeting, index: int) -> None:
        self.meeting, self.index, self.count = meeting, index, len(meeting.values)

    def gather(self, value: Any) -> list[Any]:
        self.meeting.values[self.index] = value
        self.meeting.barrier.wait()
        found = list(self.meeting.values)
        if self.first:
            self.meeting.said.append(found)
        self.meeting.barrier.wait()
        return found

    def broadcast(self, value: Any) -> Any:
        return self.gather(value)[0]

    def largest(self, number: int) -> Callable[[], int]:
        found = self.gather(number)
        return lambda: max(found)

    def leave(self) -> None:
        pass


def in_processes(count: int, work: Callable[[Processes], Any]) -> tuple[list[Any], Meeting]:
    """What ``work`` gives or raises in each of so many threads."""
    meeting = Meeting(count)

    def one(index: int) -> Any:
        try:
            return work(ThreadProcesses(meeting, index))
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count))), meeting
