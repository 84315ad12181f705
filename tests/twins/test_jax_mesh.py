"""JAX on meshes of simulated devices: the numbers of one device, and what is stored and sent."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jax")

TESTS = Path(__file__).resolve().parents[1]
RUNS = [
    pytest.param(mesh, name, marks=pytest.mark.thorough if mesh in ("data=3", "fsdp=2") else ())
    for name, meshes in {
        "plain": ("data=3", "data=4", "fsdp=4"),
        "three": ("data=4", "fsdp=2", "fsdp=4"),
        "less": ("data=2,fsdp=2",),
    }.items()
    for mesh in meshes
]


@pytest.fixture(scope="module")
def found(tmp_path_factory, thorough):
    """What jax_mesh_cases.py finds, in a process that has four devices."""
    file = tmp_path_factory.mktemp("mesh") / "found.pickle"
    places = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = os.environ | {"PYTHONPATH": places, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(TESTS / "jax_mesh_cases.py"), str(file)]
    command += ["thorough"] if thorough else []
    subprocess.run(command, env=environment, check=True, timeout=280)
    return pickle.loads(file.read_bytes())


def largest(one, other) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def same_bits(one, other) -> bool:
    names = ("weights", "first_moments", "second_moments", "raw")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return one.count == other.count and all(
        a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a) for a, b in pairs
    )


@pytest.mark.parametrize(("mesh", "name"), RUNS)
def test_steps_are_those_of_one_device(found, mesh, name, thorough) -> None:
    """Losses and norms, dropout on, ten rows on three or four devices, accumulated and not."""
    one, run = found["data=1", name], found[mesh, name]
    assert run["curve"].shape == (20 if thorough else 10, 2)
    assert np.abs(run["curve"] - one["curve"]).max() <= 1e-12
    assert largest(run["gradients"], one["gradients"]) <= 1e-12


def test_judged_alike(found) -> None:
    one, run = (found[mesh, "plain"]["judged"] for mesh in ("data=1", "data=4"))
    assert np.abs(np.subtract(run["losses"], one["losses"])).max() <= 1e-12
    assert np.abs(run["encoded"] - one["encoded"]).max() <= 1e-12
    assert run["decoded"] == one["decoded"]
    *many, single = map(len, run["decoded"])
    assert set(many) == {10} and single == 1


@pytest.mark.parametrize(
    ("mesh", "name"), [("data=4", "plain"), ("fsdp=4", "plain"), ("data=2,fsdp=2", "less")]
)
def test_resumed_on_as_many_devices_it_has_the_same_bits(found, mesh, name) -> None:
    run = found[mesh, name]
    assert same_bits(run["taken over"], run["state"])
    assert same_bits(run["end again"], run["end"])


def test_a_state_goes_on_on_another_mesh(found) -> None:
    before, moved = found["fsdp=4", "plain"], found["moved"]
    assert same_bits(moved["state"], before["state"])
    assert np.abs(moved["curve"] - before["curve"][5:]).max() <= 1e-12


def test_a_device_holds_its_part_alone(found) -> None:
    ratio = found["fsdp=4", "plain"]["bytes"] / found["data=1", "plain"]["bytes"]
    assert 0.25 <= ratio <= 0.35


def test_data_parallel_sums_once_and_gathers_nothing(found) -> None:
    assert found["collectives", "data"]["counts"] == {"all-reduce": 1}


def test_cut_weights_are_gathered_once_for_each_use(found) -> None:
    """The tied table is gathered once for both uses, and has a gradient from each."""
    plain, again = found["collectives", "fsdp"], found["collectives", "again"]
    cut = plain["cut"]
    assert plain["counts"] == {"all-gather": cut, "all-reduce": 1, "reduce-scatter": cut + 1}
    inside = cut - 3  # of layers: what is gathered outside of them are three tables
    assert again["counts"]["all-gather"] == cut + inside
    assert again["counts"]["reduce-scatter"] == cut + 1


@pytest.mark.parametrize("program", ["data", "fsdp", "again"])
def test_no_activation_is_summed_over_devices(found, program) -> None:
    """What is summed has shapes of weights: nothing is of a batch's 12 rows or of its 84 tokens."""
    shapes = " ".join(found["collectives", program]["reduced"])
    assert "f64[" in shapes
    for size in ("12,7", "12,5", "3,7", "3,5", "84,", "60,"):
        assert f"[{size}" not in shapes


def test_kernels_of_convolutions_are_cut_too(found) -> None:
    """Ten sources of features have rows of zeros below, and dropout the masks of one device."""
    one, here = (found["hearing"][mesh] for mesh in ("data=1", "fsdp=4"))
    assert np.abs(np.subtract(one, here)).max() <= 1e-12


def test_a_model_is_asked_on_the_device_that_was_chosen(found) -> None:
    assert found["second"] == [{1}, {1}]


@pytest.mark.thorough
def test_tables_of_relative_positions_are_cut_too(found) -> None:
    one, here = (found["relative"][mesh] for mesh in ("data=1", "fsdp=4"))
    assert np.abs(np.subtract(one, here)).max() <= 1e-12


@pytest.mark.thorough
def test_mistakes_are_noticed(found) -> None:
    few, mistakes = found["few"], found["mistakes"]
    assert np.abs(mistakes.pop("none") - few).max() <= 1e-12
    assert len(mistakes) == 5
    for name, curve in mistakes.items():
        assert np.abs(curve - few).max() > 1e-6, name
