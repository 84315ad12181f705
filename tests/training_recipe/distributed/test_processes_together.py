"""What processes tell each other, and what becomes of an error of one."""

import contextlib

import pytest
from fake_processes import side_by_side

from training_recipe.distributed.processes import ALONE, Vote, difference
from transformer_spec import UserError


def test_an_error_of_one_is_raised_in_all():
    def work(world):
        with world.processes.together():
            if world.processes.index == 1:
                raise UserError("bad", ["this", "that"])

    first, second, third = side_by_side(3, work)
    assert str(second) == "bad" and str(first) == str(third) == "process 1 of 3: bad"
    assert first.faults == ["this", "that"]


class TestByTheFirst:
    @pytest.mark.parametrize("failing", [None, 0, 1])
    def test_only_the_first_makes_it(self, failing):
        told = []

        @contextlib.contextmanager
        def made():
            try:
                yield "place"
            except UserError as error:
                told.append(str(error))
                raise
            told.append("whole")

        def work(world):
            with world.processes.by_the_first(made()) as given:
                if world.processes.index == failing:
                    raise UserError("bad")
            return given

        found = side_by_side(2, work)
        assert told == [{None: "whole", 0: "bad", 1: "process 1 of 2: bad"}[failing]]
        assert (found == ["place", "place"]) is (failing is None)

    @pytest.mark.parametrize("moment", ["begin", "end"])
    def test_its_own_errors_are_told(self, moment):
        @contextlib.contextmanager
        def made():
            if moment == "begin":
                raise OSError("disk")
            yield
            raise OSError("disk")

        def work(world):
            with world.processes.by_the_first(made()):
                pass

        first, second = side_by_side(2, work)
        assert isinstance(first, OSError) and str(second) == "process 0 of 2: disk"

    def test_alone(self):
        with ALONE.processes.by_the_first(contextlib.nullcontext(3)) as given:
            assert given == 3


class TestVote:
    def test_the_largest_is_known_at_the_next_asking_and_then_forgotten(self):
        given = [[0, 0], [0, 5], [2, 7], [0, 0], [0, 0], [1, 0], [0, 0]]

        def work(world):
            vote = Vote(world.processes)
            return [vote.of_all(numbers[world.processes.index]) for numbers in given]

        # 2 and 7 are given where 5 is decided, and count no more.
        assert side_by_side(2, work) == [[0, 0, 5, 0, 0, 0, 1]] * 2

    def test_alone_it_is_known_at_once(self):
        assert [Vote(ALONE.processes).of_all(number) for number in (0, 3)] == [0, 3]


def test_of_tables_the_difference_is_named():
    assert difference({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == "b (2 and 3), c (None and 4)"
    assert difference("x", "y") == "'x' and 'y'"


def test_agreeing():
    def work(world):
        world.processes.agree("the data", "y" if world.processes.index == 2 else "x")

    found = side_by_side(3, work)
    assert len({str(each) for each in found}) == 1
    assert str(found[0]).startswith(
        "the data of process 2 of 3 differ from those of process 0: 'y' and 'x'; start all"
    )
