"""Batches that are searched side by side, in both twins, find what one after another does."""

import threading
import time

import jax
import numpy as np
import pytest
import torch
from decoding_cases import PLAIN, SEARCHES, assert_same, flax_model, random_weights, torch_model

from flax_transformer import decoding as flax_decoding
from flax_transformer import device as flax_device
from flax_transformer.precision import chosen_precision
from torch_transformer import decoding as torch_decoding
from torch_transformer import device as torch_device
from training_recipe.searching.batches import decode_all
from training_recipe.searching.workers import ONE_WORKER, Stopped, Workers

TWINS = {
    "torch": (torch_model, torch_decoding, torch_device),
    "jax": (flax_model, flax_decoding, flax_device),
}
DRAW = np.random.default_rng(3)
SOURCES = [list(DRAW.integers(4, 11, size=length)) for length in (7, 3, 0, 5, 7, 1, 6, 2, 7)]
PATIENCE = 60  # seconds


@pytest.fixture(autouse=True)
def wide_numbers():
    """In this thread alone."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(flax_device, "cores", lambda: 2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=TWINS)
def twin(request):
    make, decoding, device = TWINS[request.param]
    model = make(PLAIN, random_weights(PLAIN, 2))
    return model, decoding, device.workers_of(model)


def in_new_thread(function):
    """What a function gives in a thread of its own."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def found(model, decode, search, workers, advance=lambda count: None):
    return decode_all(
        lambda source, search: decode(model, source, search),
        SOURCES, search, lambda length: 2, PLAIN, advance, workers=workers,
    )  # fmt: skip


class TestOutputs:
    @pytest.mark.parametrize("name", ["greedy", "beam 4, penalty 0.6", "samples"])
    def test_they_are_those_of_one_worker(self, twin, name):
        model, decoding, workers = twin
        counts, threads = [], set()

        def decode(*arguments):
            threads.add(threading.get_ident())
            return decoding.decode(*arguments)

        together = found(model, decode, SEARCHES[name], workers, counts.append)
        assert_same(together, found(model, decoding.decode, SEARCHES[name], ONE_WORKER))
        assert workers.most == 2
        assert sum(counts) == len(SOURCES)
        assert threading.get_ident() not in threads

    def test_an_error_of_a_batch_is_raised(self, twin):
        def decode(model, source, search):
            raise ValueError("no memory")

        with pytest.raises(ValueError, match="no memory"):
            found(twin[0], decode, SEARCHES["greedy"], twin[2])


class TestJaxPrograms:
    def test_one_is_called_at_a_time(self):
        """Two threads in the C++ part of jax.jit have crashed it."""
        model, inside, most = flax_model(PLAIN, random_weights(PLAIN, 2)), [], []
        search, source = SEARCHES["greedy"], np.array([SOURCES[0]])
        task = flax_decoding.make_task(model, source, search)

        def program(*arguments):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()
            return flax_decoding.compiled_for_processor(*arguments)

        def call(_):
            return flax_decoding.found(model, task, search, 9, program)

        list(flax_device.workers_of(model).map(call, range(8)))
        assert most == [1] * 8


class TestCores:
    def test_each_pytorch_thread_has_its_part_and_this_one_all_again(self):
        model = torch_model(PLAIN, random_weights(PLAIN, 2))
        torch.set_num_threads(4)
        workers = torch_device.workers_of(model)
        parts = list(workers.map(lambda _: torch.get_num_threads(), "ab"))
        assert parts == [2, 2]
        assert torch.get_num_threads() == 4

    def test_threads_that_begin_meanwhile_have_all(self):
        """As those of a server have that asks another model."""
        torch.set_num_threads(4)
        begun = threading.Barrier(2)
        workers = torch_device.workers_of(torch_model(PLAIN, random_weights(PLAIN, 2)))

        def work(number: int) -> list[int]:
            begun.wait(PATIENCE)
            counts = in_new_thread(torch.get_num_threads)
            begun.wait(PATIENCE)
            return [torch.get_num_threads(), counts]

        assert list(workers.map(work, range(2))) == [[2, 4]] * 2
        assert in_new_thread(torch.get_num_threads) == torch.get_num_threads() == 4

    def test_a_pool_that_has_one_number_for_all_threads(self, monkeypatch):
        """PyTorch says a word on OpenMP there too."""
        said = "OpenMP not found\nATen parallel backend: native thread pool"
        monkeypatch.setattr(torch.__config__, "parallel_info", lambda: said)
        model = torch_model(PLAIN, random_weights(PLAIN, 2))
        assert torch_device.workers_of(model) == ONE_WORKER

    def test_one_core_is_one_worker(self, monkeypatch):
        torch.set_num_threads(1)
        monkeypatch.setattr(flax_device, "cores", lambda: 1)
        for make, _, device in TWINS.values():
            assert device.workers_of(make(PLAIN, random_weights(PLAIN, 2))).most == 1


class TestNumbers:
    """Threads compute in the numbers that the one that asks has chosen for itself."""

    def test_autocast_of_pytorch(self):
        model = torch_model(PLAIN, random_weights(PLAIN, 2))
        with torch.autocast("cpu", torch.float16):
            workers = torch_device.workers_of(model)

            def chosen(_: int) -> tuple:
                return torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

            assert list(workers.map(chosen, range(2))) == [(True, torch.float16)] * 2
        plain = torch_device.workers_of(model)
        assert list(plain.map(lambda _: torch.is_autocast_enabled("cpu"), range(2))) == [False] * 2

    @pytest.mark.parametrize("precision", [None, "bfloat16"])
    def test_precision_of_jax(self, precision):
        model = flax_model(PLAIN, random_weights(PLAIN, 2))
        with jax.default_matmul_precision(precision):
            workers = flax_device.workers_of(model)
        assert workers.itemsize == 8
        found = list(workers.map(lambda _: (chosen_precision(), jax.config.jax_enable_x64), "ab"))
        assert found == [(precision, True)] * 2


class TestStopping:
    def test_a_program_of_jax_that_nobody_waits_for_is_not_called(self):
        model, called = flax_model(PLAIN, random_weights(PLAIN, 2)), []
        search, source = SEARCHES["greedy"], np.array([SOURCES[0]])
        task = flax_decoding.make_task(model, source, search)
        workers = Workers(6, flax_device.workers_of(model).share)

        def program(*arguments):
            called.append(1)
            time.sleep(0.2)
            raise ValueError("no memory")

        def work(_: str) -> object:
            return flax_decoding.found(model, task, search, 9, program)

        with pytest.raises(ValueError, match="no memory"):
            list(workers.map(work, "abcdef"))
        assert len(called) < 3  # one may begin before the error of the first is seen

    def test_a_search_of_pytorch_ends_before_its_end(self, monkeypatch):
        """An output is 17 tokens long; nobody waits for it any more after the first."""
        model, step = torch_model(PLAIN, random_weights(PLAIN, 2)), torch_decoding.chain_step
        searching, given_up, ended = threading.Event(), threading.Event(), []

        def slow(*arguments):
            searching.set()
            assert given_up.wait(PATIENCE)
            ended.append("a step")
            return step(*arguments)

        def decode(model, source, search):
            if source.shape[1] > 8:
                return [[]]
            try:
                return torch_decoding.decode(model, source, search)
            except Stopped:
                ended.append("the search")
                raise

        def advance(count):
            if count:
                assert searching.wait(PATIENCE)
                threading.Timer(0.5, given_up.set).start()
                raise KeyboardInterrupt

        monkeypatch.setattr(torch_decoding, "chain_step", slow)
        sources, workers = [[4] * 12, [5, 6, 7]], Workers(2)
        with pytest.raises(KeyboardInterrupt):
            decode_all(
                lambda *given: decode(model, *given), sources, SEARCHES["greedy"],
                lambda length: 1, PLAIN, advance, workers=workers,
            )  # fmt: skip
        assert ended == ["a step", "the search"]
