"""A state on several processes: what the first one reads, all read, in the same order."""

import threading

import numpy as np
import pytest
from thread_processes import in_processes

from training_recipe.arrays import Header, Parts, headers_of
from training_recipe.backend import Checkpoint
from training_recipe.distributed.reading import announced, answer

WEIGHTS = {"a": np.arange(3.0), "b": np.arange(5.0)}
MOMENTS = {"a": np.arange(3.0) + 7}


def held(read: list) -> Checkpoint:
    """A state that writes down what is read of it."""

    def parts(arrays: dict) -> Parts:
        def one(name: str) -> np.ndarray:
            read.append((len(arrays), name))
            return arrays[name]

        return Parts(headers_of(arrays), one)

    return Checkpoint(parts(WEIGHTS), parts(MOMENTS), parts(MOMENTS), 3)


@pytest.mark.parametrize("count", [2, 3])
def test_all_read_what_the_first_reads(count: int) -> None:
    read = [[] for _ in range(count)]

    def work(processes):
        state = held(read[processes.index])
        if not processes.first:
            return answer(state, processes)
        with announced(state, processes) as told:
            assert told.count == 3 and headers_of(told.weights) == headers_of(WEIGHTS)
            order = told.weights["b"], told.second_moments["a"], told.weights["a"]
            return [array.tolist() for array in order]

    found, meeting = in_processes(count, work)
    assert found[0] == [[0, 1, 2, 3, 4], [7, 8, 9], [0, 1, 2]] and set(found[1:]) == {None}
    assert read == [[(2, "b"), (1, "a"), (2, "a")]] * count
    told = [values[0] for values in meeting.said]
    assert told == [("weights", "b"), ("second_moments", "a"), ("weights", "a"), None]


def test_an_error_of_the_first_lets_the_others_go() -> None:
    def work(processes):
        state = held([])
        if not processes.first:
            return answer(state, processes)
        with announced(state, processes) as told:
            told.weights["a"]
            raise OSError(28, "No space left on device")

    (first, second), _ = in_processes(2, work)
    assert isinstance(first, OSError) and second is None


def test_parts_hold_nothing_and_read_when_asked() -> None:
    calls = []

    def read(name: str) -> np.ndarray:
        calls.append((name, threading.current_thread()))
        return np.zeros(2)

    parts = Parts({"x": Header((2,), np.dtype(float))}, read)
    assert len(parts) == 1 and "x" in parts and "y" not in parts
    assert list(parts) == ["x"] and headers_of(parts)["x"].shape == (2,)
    assert not [name for name, _ in calls if name == "y"]
    before = len(calls)
    assert parts["x"] is not parts["x"] and len(calls) == before + 2
    with pytest.raises(KeyError):
        parts["y"]
