"""Threads that search side by side: order, errors, an end before the end, memory."""

import contextlib
import threading
import time

import pytest

from training_recipe.searching.batches import decode_all
from training_recipe.searching.search import Hypothesis, Search, search_bytes
from training_recipe.searching.workers import ONE_WORKER, Stopped, Workers, check_wanted
from transformer_spec import TransformerConfig

PATIENCE = 30  # seconds


class TestMap:
    def test_results_come_in_the_order_of_the_tasks(self):
        def slow_at_first(number: int) -> int:
            time.sleep(0.05 if number == 0 else 0)
            return number * number

        assert list(Workers(3).map(slow_at_first, range(7))) == [n * n for n in range(7)]

    def test_tasks_are_worked_at_side_by_side(self):
        met = threading.Barrier(2)
        assert len(list(Workers(2).map(lambda _: met.wait(PATIENCE), "ab"))) == 2

    def test_one_worker_and_one_task_stay_in_the_thread_that_asks(self):
        here = threading.get_ident()

        def who(_: str) -> int:
            return threading.get_ident()

        assert list(ONE_WORKER.map(who, "ab")) == [here, here]
        assert list(Workers(4).map(who, "a")) == [here]
        assert list(Workers(4).map(who, "")) == []

    def test_each_has_a_share_of_as_many_as_there_are(self):
        counts = []

        @contextlib.contextmanager
        def share(count: int):
            counts.append(count)
            yield

        list(Workers(8, share).map(str, range(3)))
        assert counts == [3, 3, 3]

    def test_an_error_is_raised_and_the_others_stop(self):
        begun, ended = threading.Event(), []

        def work(name: str) -> None:
            if name == "wrong":
                assert begun.wait(PATIENCE)
                raise ValueError(name)
            begun.set()
            try:
                for _ in range(1000 * PATIENCE):
                    time.sleep(0.001)
                    check_wanted()
            except Stopped:
                ended.append(name)
                raise

        with pytest.raises(ValueError, match="wrong"):
            list(Workers(2).map(work, ["wrong", "long", *"abcdef"]))
        assert "long" in ended
        assert set(ended) <= {"long", "a"}  # none was begun after the error was seen

    def test_one_that_nobody_listens_to_stops(self):
        begun, ended = threading.Event(), threading.Event()

        def work(number: int) -> int:
            while number:
                begun.set()
                time.sleep(0.001)
                try:
                    check_wanted()
                except Stopped:
                    ended.set()
                    raise
            return number

        results = Workers(2).map(work, [0, 1])
        assert next(results) == 0
        assert begun.wait(PATIENCE)
        results.close()
        assert ended.is_set()

    def test_outside_everybody_is_wanted(self):
        check_wanted()


class TestAffordable:
    def test_no_more_than_there_is_memory_for(self, monkeypatch):
        monkeypatch.setattr("training_recipe.searching.workers.available", lambda: 1000)
        assert [Workers(8).affordable(n).most for n in (0, 1, 100, 250, 251, 9999)] == [
            8, 8, 5, 2, 1, 1,
        ]  # fmt: skip

    @pytest.mark.parametrize(("itemsize", "together"), [(4, 2), (8, 1)])
    def test_batches_of_a_model_are_no_more(self, monkeypatch, itemsize, together):
        """Half of what is free holds two batches of float32."""
        config = TransformerConfig(9, 9, 8, 8, 2, 1, 1, max_length=20)
        search, rows, length = Search(beam=3), 2, 8
        needed = search_bytes(rows, length, config, search)
        monkeypatch.setattr("training_recipe.searching.workers.available", lambda: 4 * needed)
        lock, inside, most = threading.Lock(), [], []

        def decode(source, search):
            with lock:
                inside.append(1)
                most.append(len(inside))
            time.sleep(0.05)
            inside.pop()
            return [[Hypothesis([], 0.0, 0.0)]] * len(source)

        decode_all(
            decode, [[5, 6, 7]] * 12, search, lambda length: rows, config,
            workers=Workers(6, itemsize=itemsize),
        )  # fmt: skip
        assert max(most) == together
