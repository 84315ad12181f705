"""Processes that are threads of one, so that what they say to each other is tested quickly.

Whatever they call out of step is an error, and so is waiting for one that does not come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from training_recipe.backend import Checkpoint
from training_recipe.batching.batches import Batch
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import Processes, World
from training_recipe.searching.workers import ONE_WORKER

PATIENCE = 20.0  # seconds


class Board:
    """What all threads write their values on."""

    def __init__(self, count: int) -> None:
        self.count, self.left = count, []
        self.barrier = threading.Barrier(count)
        self.slots: list[Any] = [None] * count
        self.votes: list[dict[int, int]] = []
        self.changed = threading.Condition()

    def exchange(self, index: int, value: Any) -> list[Any]:
        self.slots[index] = value
        self.barrier.wait(PATIENCE)
        found = list(self.slots)
        self.barrier.wait(PATIENCE)
        return found

    def vote(self, index: int, number: int) -> Callable[[], int]:
        with self.changed:
            turn = next((n for n, given in enumerate(self.votes) if index not in given), None)
            if turn is None:
                turn = len(self.votes)
                self.votes.append({})
            votes = self.votes[turn]
            votes[index] = number
            self.changed.notify_all()

        def wait() -> int:
            with self.changed:
                assert self.changed.wait_for(lambda: len(votes) == self.count, PATIENCE)
                return max(votes.values())

        return wait


class Threads(Processes):
    """One of the threads."""

    def __init__(self, board: Board, index: int) -> None:
        self.board, self.index, self.count = board, index, board.count

    def _in_step(self, call: str, value: Any) -> list[Any]:
        given = self.board.exchange(self.index, (call, value))
        assert len({name for name, _ in given}) == 1, f"called out of step: {given}"
        return [each for _, each in given]

    def gather(self, value: Any) -> list[Any]:
        return self._in_step("gather", value)

    def broadcast(self, value: Any) -> Any:
        return self._in_step("broadcast", value)[0]

    def largest(self, number: int) -> Callable[[], int]:
        return self.board.vote(self.index, number)

    def leave(self) -> None:
        self.board.left.append(self.index)


def here() -> int:
    """Which process the calling thread is."""
    return int(threading.current_thread().name.removeprefix("process "))


class InStep:
    """A backend of one of the threads: all must call it alike, with equal arguments."""

    def __init__(self, backend: Any, processes: Threads) -> None:
        self.backend, self.processes = backend, processes
        self.name, self.config = backend.name, backend.config
        self.workers = ONE_WORKER  # calls in one order

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.backend, name)

        def called(*given: Any) -> Any:
            calls = self.processes._in_step(f"backend.{name}", seen(given))
            assert all(call == calls[0] for call in calls), f"{name} is called with other arguments"
            return method(*given)

        return called


def seen(given: Any) -> Any:
    """What can be compared of arguments."""
    if isinstance(given, (list, tuple)):
        return [seen(each) for each in given]
    if isinstance(given, Batch):
        return [array.tobytes() for array in given.arrays]
    if isinstance(given, Checkpoint):
        return [list(given.weights), given.count]
    return given.tobytes() if isinstance(given, np.ndarray) else given


def side_by_side(count: int, work: Callable[[World], Any]) -> list[Any]:
    """What ``work`` returns or raises in each of ``count`` processes of a data parallel world.

    None of them may be waiting in the end.
    """
    board = Board(count)
    found: list[Any] = [None] * count

    def one(index: int) -> None:
        try:
            found[index] = work(World(Threads(board, index), Mesh(data=count)))
        except Exception as error:
            found[index] = error
            if isinstance(error, (AssertionError, threading.BrokenBarrierError)):
                board.barrier.abort()

    threads = [
        threading.Thread(target=one, args=(n,), name=f"process {n}", daemon=True)
        for n in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a process waits for another"
    broken = (AssertionError, threading.BrokenBarrierError)
    for each in found:
        if isinstance(each, broken):
            raise each
    return found
