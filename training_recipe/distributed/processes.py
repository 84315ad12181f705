"""The processes that train one run together: what they tell each other besides the model's numbers.

Every method is collective: all processes call it, in the same order, and it waits for all. A twin
fills what is left open here by its own framework's means, in its ``processes.py``.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from training_recipe.distributed.mesh import Mesh
from transformer_spec import UserError


@dataclass(frozen=True)
class Fault:
    """What went wrong in another process."""

    message: str
    faults: tuple[str, ...] = ()


class Processes(abc.ABC):
    """So many processes, each of which knows its number; the first has the number 0."""

    index: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and says what there is to say."""
        return self.index == 0

    @abc.abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """What each process gives, in their order; values are those that pickle takes."""

    @abc.abstractmethod
    def broadcast(self, value: Any) -> Any:
        """What the first process gives."""

    @abc.abstractmethod
    def largest(self, number: int) -> Callable[[], int]:
        """The largest number that any process gives; it is waited for when it is asked for."""

    @abc.abstractmethod
    def leave(self) -> None:
        """Say goodbye to the others, at the end or after an error of all."""

    def wait(self) -> None:
        """Wait until every process is here."""
        self.gather(None)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block in which an error of one process is raised in all, once all have ended it.

        Inside, no process may wait for one that can fail before it comes to the same place.
        """
        try:
            yield
        except Exception as error:
            self.gather(Fault(str(error), tuple(getattr(error, "faults", ()))))
            raise
        for number, fault in enumerate(self.gather(None)):
            if fault is not None:
                where = f"process {number} of {self.count}"
                raise UserError(f"{where}: {fault.message}", list(fault.faults))

    def agree(self, what: str, value: Any) -> None:
        """Raise a UserError in every process where one has another value than the first."""
        given = self.gather(value)
        other = next((number for number, one in enumerate(given) if one != given[0]), None)
        if other is not None:
            raise UserError(
                f"{what} of process {other} of {self.count} differ from those of process 0: "
                f"{difference(given[other], given[0])}; start all processes by the same command, "
                "with the same files and the same versions"
            )

    @contextlib.contextmanager
    def by_the_first(self, made: AbstractContextManager[Any]) -> Iterator[Any]:
        """``made`` as the first process alone enters and leaves it; all get what it gives.

        What goes wrong in any process, inside of the block too, is an error of all, which ``made``
        is left with. The block is one as in ``together``.
        """
        with contextlib.ExitStack() as stack:
            given = None
            with self.together():
                given = stack.enter_context(made) if self.first else None
            given = self.broadcast(given)
            with self.together():
                yield given
            with self.together():
                stack.close()


def difference(one: Any, other: Any) -> str:
    """Two values that differ; of two tables only what differs."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return f"{one!r} and {other!r}"
    names = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    return ", ".join(f"{name} ({one.get(name)!r} and {other.get(name)!r})" for name in names)


class Vote:
    """The largest number that any process gives, known at the next asking; alone, at once.

    So nobody waits for a process that is a step behind. What was decided is forgotten.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._asked: Callable[[], int] | None = None

    def of_all(self, number: int) -> int:
        """What all gave when they were asked before, 0 the first time; ``number`` counts next."""
        if self._processes.count == 1:
            return number
        asked, self._asked = self._asked, None
        decided = asked() if asked is not None else 0
        if not decided:
            self._asked = self._processes.largest(number)
        return decided


class Alone(Processes):
    """The only process of a run."""

    index, count = 0, 1

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def broadcast(self, value: Any) -> Any:
        return value

    def largest(self, number: int) -> Callable[[], int]:
        return lambda: number

    def leave(self) -> None:
        pass

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        yield


@dataclass(frozen=True)
class World:
    """All processes of a run and the mesh of all their devices."""

    processes: Processes
    mesh: Mesh = Mesh()

    @property
    def is_one_device(self) -> bool:
        """Whether one device computes everything, and nothing has to be cut or summed."""
        return self.mesh.devices == 1


ALONE = World(Alone())
