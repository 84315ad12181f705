"""PyTorch on meshes of several processes computes what one device does, dropout on."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch_mesh_cases as cases
from torch_mesh_cases import MESHES, RESUMED, RUNS, SETTINGS, THOROUGH

from training_recipe.backend import Checkpoint
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import ALONE, Alone, World
from transformer_spec import UserError

EXACT = 1e-12
ON_MESHES = [
    pytest.param(*(count, text, name), marks=pytest.mark.thorough if text in THOROUGH else ())
    for count, meshes in MESHES.items()
    for text, names in meshes.items()
    for name in names
    if count > 1
]
each_run = pytest.mark.parametrize(("count", "mesh", "name"), ON_MESHES)


@pytest.fixture(scope="module")
def found(tmp_path_factory, thorough) -> dict[Any, Any]:
    """(number of processes, index) -> what that process found; "abandoned": an error's message."""
    folder = tmp_path_factory.mktemp("meshes")
    root = Path(cases.__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{root.parent}{os.pathsep}{root}"}
    strict = ["-W", "error::UserWarning", "-W", "error::FutureWarning"]
    command = [sys.executable, *strict, cases.__file__, str(folder)]
    command += ["thorough"] if thorough else []
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    read: dict[Any, Any] = {"abandoned": (folder / "abandoned").read_text()}
    for path in folder.glob("*.pickle"):
        count, index = map(int, path.stem.split("-"))
        read[count, index] = pickle.loads(path.read_bytes())
    return read


def apart(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def arrays(state: Checkpoint) -> dict[str, bytes | int]:
    """The bits of a state."""
    kinds = ("weights", "first_moments", "second_moments", "raw")
    held = {(kind, name): a for kind in kinds for name, a in getattr(state, kind).items()}
    return {str(key): array.tobytes() for key, array in held.items()} | {"count": state.count}


@each_run
def test_steps_as_on_one_device(found, count, mesh, name, thorough) -> None:
    one, here = found[1, 0]["data=1", name], found[count, 0][mesh, name]
    assert here["curve"].shape == (20 if thorough else 10, 2)
    assert np.abs(here["curve"] - one["curve"]).max() <= EXACT
    assert apart(here["gradients"], one["gradients"]) <= EXACT


@each_run
def test_every_process_has_the_same_results(found, count, mesh, name) -> None:
    results = [found[count, index][mesh, name] for index in range(count)]
    for other in results[1:]:
        assert np.array_equal(other["curve"], results[0]["curve"])
        assert arrays(other["state"]) == arrays(results[0]["state"])
        for moment in ("half", "end"):
            assert other[moment]["losses"] == results[0][moment]["losses"]
            assert other[moment]["decoded"] == results[0][moment]["decoded"]


@each_run
def test_a_model_is_judged_as_on_one_device(found, count, mesh, name) -> None:
    """In the middle of the training, and after it: what was whole for judging is not kept."""
    for moment in ("half", "end"):
        one, here = found[1, 0]["data=1", name][moment], found[count, 0][mesh, name][moment]
        for (loss, tokens), (expected, real) in zip(here["losses"], one["losses"], strict=True):
            assert tokens == real
            assert loss / tokens == pytest.approx(expected / real, abs=EXACT)
        assert np.abs(here["encoded"] - one["encoded"]).max() <= EXACT
        assert here["decoded"] == one["decoded"]
    assert found[count, 0][mesh, name]["half"]["losses"] != here["losses"]


@pytest.mark.parametrize("name", [*cases.RELATIVE, "hearing"])
def test_tables_of_relative_positions_and_convolutions_are_cut_too(found, name) -> None:
    """Layers computed again gather theirs anew; what is outside of layers is gathered once."""
    one, here = (found[count, 0]["relative"][name] for count in (1, 4))
    assert np.abs(here - one).max() <= EXACT


def test_batches_are_cut_unevenly() -> None:
    rows = {len(cases.batch(number).source) for number in range(3)}
    assert 1 in rows and all(number % 4 for number in rows)
    tokens = [cases.share(cases.batch(0), index, 4)[0].tokens for index in range(4)]
    assert len(set(tokens)) > 1


@pytest.mark.parametrize(("mesh", "name"), sorted(RESUMED))
def test_resumed_on_as_many_processes_the_bits_are_equal(found, mesh, name) -> None:
    count = 3 if mesh == "data=3" else 4
    for index in range(count):
        here = found[count, index][mesh, name]
        assert arrays(here["taken over"]) == arrays(here["state"])
        expected = here["curve"][cases.HALF : cases.FURTHER]
        assert np.array_equal(here["resumed"], expected)
        assert arrays(here["further again"]) == arrays(here["further"])


def test_a_state_moves_to_another_mesh(found) -> None:
    state = found[4, 0]["fsdp=4", "plain"]["state"]
    curve = found[1, 0]["data=1", "plain"]["curve"]
    moved = found[4, 0]["moved"]
    assert arrays(moved["state"]) == arrays(state)
    assert np.abs(moved["curve"] - curve[cases.HALF : cases.FURTHER]).max() <= EXACT
    alone = cases.moved_state(state, SETTINGS, ALONE)
    assert arrays(alone["state"]) == arrays(state)
    assert np.abs(alone["curve"] - curve[cases.HALF : cases.FURTHER]).max() <= EXACT


def test_averages_of_a_mesh_move_too(found) -> None:
    state = found[4, 0]["data=2,fsdp=2", "less"]["state"]
    assert state.raw and apart(state.weights, state.weights | state.raw) > 0
    alone = cases.moved_state(state, RUNS["less"], ALONE)
    assert arrays(alone["state"]) == arrays(state)
    curve = found[1, 0]["data=1", "less"]["curve"]
    assert np.abs(alone["curve"] - curve[cases.HALF : cases.FURTHER]).max() <= EXACT


def test_a_process_holds_its_part_alone(found) -> None:
    whole = found[1, 0]["data=1", "plain"]["bytes"]
    for index in range(4):
        assert found[4, index]["fsdp=4", "plain"]["bytes"] <= 0.35 * whole
    assert found[3, 0]["data=3", "plain"]["bytes"] == whole


def test_collectives_of_a_step(found) -> None:
    """Both layers and what is outside of them are gathered, the layers again for the gradient.

    Each one's gradient is scattered; a sum over all processes is the loss, another the norm.
    """
    gather, scatter, reduce = (
        f"c10d.{kind}_" for kind in ("_allgather_base", "_reduce_scatter_base", "allreduce")
    )
    assert found[4, 0]["collectives"] == {
        "fsdp=4": {gather: 5, scatter: 3, reduce: 2},
        "data=2,fsdp=2": {gather: 5, scatter: 3, reduce: 3 + 2},
        "data=4": {reduce: 3 + 1},
    }


@pytest.mark.thorough
@pytest.mark.parametrize("mistake", [name for name in cases.MISTAKES if name != "none"])
def test_a_mistake_would_be_noticed(found, mistake) -> None:
    expected, made = found[1, 0]["few"], found[4, 0]["mistakes"]
    assert np.abs(made["none"] - expected).max() <= EXACT
    assert np.abs(made[mistake] - expected).max() > 1e-4


@pytest.mark.parametrize("count", [3, 4])
def test_what_processes_tell_each_other(found, count) -> None:
    for index in range(count):
        told = found[count, index]["told"]
        assert told["gathered"] == [{"index": number} for number in range(count)]
        assert told["broadcast"] == "from 0"
        assert told["largest"] == [count - 1, 0]
        assert "no room on the disk" in told["together"]
        assert "the settings of process 1" in told["agree"]


def test_the_end_of_another_process_is_one_clear_error(found) -> None:
    assert "another process ended" in found["abandoned"]
    assert "--resume" in found["abandoned"]


def test_native_dropout_on_a_mesh_is_refused() -> None:
    settings = cases.dataclasses.replace(SETTINGS, dropout_rng="native")
    with pytest.raises(UserError, match="--dropout-rng portable"):
        cases.make_backend(
            cases.CONFIG, settings, cases.beginning(settings), World(Alone(), Mesh(data=2))
        )
