"""``train.py --resume RUN --backend OTHER``: a run that changes its framework learns the same."""

import json
import os

import numpy as np
import pytest
from training_cases import SMALL, metrics, run, signal_after, write_words

STEPS = ["--steps", "24", "--log-every", "1", "--save-every", "12", "--evaluate-every", "8"]
EXACT = [*SMALL, *STEPS, "--dtype", "float64", "--dropout", "0"]
NOISY = [*SMALL, *STEPS, "--peak-lr", "0.01"]
PAIRS = [("torch", "jax"), ("jax", "torch")]
pytestmark = pytest.mark.usefixtures("both_frameworks")


def losses(folder, kind: str) -> dict[int, float]:
    """The loss of each step that has a line of a kind."""
    return {m["step"]: m["loss"] for m in metrics(folder) if m["kind"] == kind}


def learning_rates(folder) -> list[float]:
    return [m["learning_rate"] for m in metrics(folder) if m["kind"] == "train"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data, the current one; whole runs in it are made once."""
    folder, before = tmp_path_factory.mktemp("frameworks"), os.getcwd()
    write_words(folder)
    os.chdir(folder)
    yield folder
    os.chdir(before)


def whole(place, backend: str, arguments: list[str], name: str):
    """A run that stays with one framework."""
    folder = place / "runs" / f"{name}-{backend}"
    if not folder.exists():
        assert run(backend, [*arguments, "--name", folder.name]) == 0
    return folder


def changed(place, backends: tuple[str, ...], arguments: list[str], name: str):
    """A run that changes its framework after steps 11, 22, ..."""
    folder = place / "runs" / f"{name}-{'-'.join(backends)}"
    arguments = [*arguments, "--name", folder.name]
    for number, backend in enumerate(backends[:-1], 1):
        assert run(backend, arguments, signal_after(11 * number)) == 130
        arguments = ["--resume", str(folder)]
    assert run(backends[-1], arguments) == 0
    return folder


def assert_close(folder, expected, bound: float) -> None:
    for kind in ("train", "evaluation"):
        ours, theirs = losses(folder, kind), losses(expected, kind)
        assert list(ours) == list(theirs)
        difference = np.subtract(list(ours.values()), list(theirs.values()))
        assert np.abs(difference).max() <= bound, kind
    assert learning_rates(folder) == learning_rates(expected)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("backends", PAIRS, ids="-".join)
@pytest.mark.usefixtures("float64", "quick")
def test_exactly_the_same_curve(place, backends) -> None:
    folder = changed(place, backends, EXACT, "exact")
    assert_close(folder, whole(place, backends[0], EXACT, "exact"), 1e-9)
    assert json.loads((folder / "settings.json").read_text())["backend"] == backends[1]


@pytest.mark.usefixtures("float64", "quick")
def test_there_and_back_again(place) -> None:
    folder = changed(place, ("torch", "jax", "torch"), EXACT, "back")
    assert_close(folder, whole(place, "torch", EXACT, "exact"), 1e-9)


@pytest.mark.thorough
@pytest.mark.parametrize("backends", PAIRS, ids="-".join)
@pytest.mark.usefixtures("quick")
def test_no_bump_in_float32_with_dropout(place, backends) -> None:
    """The dropped units are the same ones too: rounding is all that differs."""
    folder = changed(place, backends, NOISY, "noisy")
    assert_close(folder, whole(place, backends[0], NOISY, "noisy"), 1e-3)
