"""Work on tensors in several threads: all of it, within a bound, and its errors."""

import hashlib
import threading
import time

import numpy as np
import pytest
from messages import faults_say

from convert.core.ledger import Hashed
from convert.core.operations import Split
from convert.core.parallel import LITTLE, ROOM, THREADS, in_threads
from convert.core.pipeline import Converted
from convert.core.rules import Rule, rename
from convert.core.tensors import Held, Tensors, pieces
from convert.formats.placing import place_arrays


class Watched:
    """Remembers what was worked on, in which order, and how much of it at once."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes, self.order, self.now, self.most = sizes, [], 0, 0
        self.lock = threading.Lock()

    def __call__(self, name: str) -> None:
        with self.lock:
            self.order.append(name)
            self.now += self.sizes[name]
            self.most = max(self.most, self.now)
        time.sleep(0.002)
        with self.lock:
            self.now -= self.sizes[name]


@pytest.mark.parametrize("largest", [0, ROOM // 3, ROOM, 5 * ROOM])
def test_every_name_once_within_the_bound(largest):
    sizes = {f"{i}": (i % 7) * largest // 6 for i in range(100)}
    watched = Watched(sizes)
    in_threads(sizes, watched)
    assert sorted(watched.order) == sorted(sizes)
    assert watched.most <= ROOM + max(sizes.values())


def test_large_ones_first():
    sizes = {"small": 1, "large": 2 * ROOM, "other": 1}
    watched = Watched(sizes)
    in_threads(sizes, watched)
    assert watched.order[0] == "large"


@pytest.mark.skipif(THREADS == 1, reason="one thread")
def test_more_than_one_at_once():
    met = threading.Barrier(2, timeout=60)
    in_threads({"large": 2 * ROOM, "small": 1}, lambda _: met.wait())
    assert met.n_waiting == 0 and not met.broken


@pytest.mark.parametrize("size", [1, LITTLE], ids=["alone", "in threads"])
def test_first_error_ends_it(size):
    done = []

    def work(name: str) -> None:
        done.append(name)
        if name == "3":
            raise ZeroDivisionError(name)
        time.sleep(0.01)

    with pytest.raises(ZeroDivisionError, match="3"):
        in_threads({str(i): size for i in range(1000)}, work)
    assert len(done) < 100


def test_little_is_worked_on_by_this_thread_in_order():
    found = []
    in_threads({"b": LITTLE - 1, "a": 1}, lambda name: found.append((name, threading.get_ident())))
    assert found == [("b", threading.get_ident()), ("a", threading.get_ident())]


def test_nothing_to_do():
    in_threads({}, pytest.fail)


def test_rule_with_several_targets_runs_once_among_threads():
    """Whichever thread comes first, the source is read once and every part is right."""

    class Counted(Tensors):
        reads = 0

        def read(self, name: str) -> np.ndarray:
            self.reads += 1
            time.sleep(0.005)
            return np.arange(12).reshape(6, 2)

    for _ in range(10):
        source = Counted("counted", Held({"abc": np.arange(12).reshape(6, 2)}).headers)
        split = Converted(source, [Rule(("abc",), ("a", "b", "c"), Split(3))])
        converted = Converted(split, [rename(name, name * 2) for name in "abc"])
        found: dict[str, np.ndarray] = {}
        in_threads(
            {name: LITTLE for name in converted},
            lambda name, found=found, all_=converted: found.update({name: all_.read(name)}),
        )
        assert source.reads == 1
        assert {name: array.ravel().tolist() for name, array in found.items()} == {
            "aa": [0, 1, 2, 3], "bb": [4, 5, 6, 7], "cc": [8, 9, 10, 11],
        }  # fmt: skip


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (300, 700), (1000, 1300), (65, 4, 3)])
@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_pieces_are_the_bytes_in_row_order(shape, dtype):
    array = np.random.default_rng(0).integers(-99, 99, shape).astype(dtype)
    for given in (array, array.T, array[::2] if shape else array):
        assert b"".join(piece.tobytes() for piece in pieces(given)) == given.tobytes()


def test_fingerprints_of_many_arrays_placed_at_once(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {f"{i}": draw.random((97 + i, 300)) for i in range(40)}
    arrays["3"][5, 7] = np.nan
    source = Hashed(Held(arrays))
    turned = {name: array.T for name, array in arrays.items() if int(name) % 2}
    target = Hashed(Held(arrays | turned), like=source)
    places = {name: int(name) * 10**6 for name in arrays}
    source.read_rest()
    with open(tmp_path / "file", "w+b") as file:
        place_arrays(file, target, places)
    content = (tmp_path / "file").read_bytes()
    for name, at in places.items():
        array = turned.get(name, arrays[name])
        assert content[at : at + array.nbytes] == array.tobytes()
        assert target.found[name].sha256 == hashlib.sha256(array.tobytes()).hexdigest()
        same = source.found[name].sha256 == target.found[name].sha256
        assert same == (name not in turned)
    faults_say(source.warnings(), ("warning", "1 of 30,000", "of 3", "NaN or infinite"))
