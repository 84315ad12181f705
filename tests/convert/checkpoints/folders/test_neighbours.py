"""What lies beside a model, or above it, is not the model: folders of others, closed ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from convert_cases import CONFIG
from marian_folders import marian_weights, write_marian
from messages import says
from translate_cases import ROOT

from convert.checkpoints.folders.location import locate
from convert.conversion import SourceRequest, inspect
from transformer_spec import initial_weights

# Opened in a process without root's right to read everything: the first argument is the model.
OPEN = """
import sys
from pathlib import Path
from convert.conversion.opening import open_model
from transformer_spec import UserError
try:
    opened = open_model(sys.argv[1])
    opened.weights()
    print(opened.located.kind, opened.located.home)
except UserError as error:
    print(f"UserError: {error}")
"""
RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def opened_as_user(path) -> str:
    """What a user who may not read everything is told of a model, never a traceback."""
    before = RIGHTS if os.geteuid() == 0 else []
    if before and shutil.which(before[0]) is None:
        pytest.skip("root may read everything, and there is no setpriv")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*before, sys.executable, "-c", OPEN, str(path)]
    done = subprocess.run(command, env=environment, text=True, timeout=100, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def closed():
    """Takes rights away until the test is over."""
    changed = []

    def close(path, mode=0o000):
        changed.append(path)
        path.chmod(mode)

    yield close
    for path in changed:
        path.chmod(0o755)


@pytest.fixture
def marian(tmp_path):
    (tmp_path / "d").mkdir()
    return write_marian(tmp_path / "d" / "marian", marian_weights())


def save_orbax(path, seed=0):
    ocp = pytest.importorskip("orbax.checkpoint")
    from convert import torch_to_flax

    tree: dict = {}
    for name, array in torch_to_flax(initial_weights(CONFIG, seed)).items():
        *keys, leaf = name.split(".")
        node = tree
        for key in keys:
            node = node.setdefault(key, {})
        node[leaf] = np.asarray(array)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)
    return path


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
class TestClosedFolders:
    @pytest.mark.parametrize("name", ["lost+found", "marian/lost+found"])
    def test_beside_the_model_and_in_it(self, name, marian, closed):
        place = marian.parent / name
        place.mkdir()
        closed(place)
        says(opened_as_user(marian), "weight folder None")

    def test_beside_an_orbax_folder(self, tmp_path, closed):
        (tmp_path / "d" / "lost+found").mkdir(parents=True)
        orbax = save_orbax(tmp_path / "d" / "weights")
        CONFIG.save(tmp_path / "d" / "config.json")
        closed(tmp_path / "d" / "lost+found")
        says(opened_as_user(orbax), f"Orbax folder {tmp_path / 'd'}")
        closed(tmp_path / "d", 0o711)
        says(opened_as_user(orbax), f"Orbax folder {tmp_path / 'd'}")

    def test_a_parent_that_is_not_listed(self, marian, closed):
        closed(marian.parent, 0o711)
        says(opened_as_user(marian), "weight folder None")

    @pytest.mark.parametrize("name", ["", "model.safetensors", "config.json"])
    def test_a_fault_of_the_model_itself_is_told(self, name, marian, closed):
        closed(marian / name)
        says(opened_as_user(marian), "UserError", marian / name, "Permission denied")

    def test_where_all_that_could_be_weights_is_closed(self, tmp_path, closed):
        (tmp_path / "step" / "default").mkdir(parents=True)
        closed(tmp_path / "step" / "default")
        says(opened_as_user(tmp_path / "step"), "UserError", tmp_path / "step" / "default", "not")


class TestNeighbours:
    """An Orbax folder beside a model of another library, and a config.json of ours above both."""

    @pytest.fixture
    @staticmethod
    def beside(marian):
        save_orbax(marian.parent / "jax_ckpt")
        CONFIG.save(marian.parent / "config.json")
        return marian.parent

    def test_a_folder_of_a_library_is_its_own_home(self, beside):
        (beside / "marian" / "source.spm").write_bytes(b"pieces")
        found = inspect(SourceRequest(beside / "marian"))
        assert (found.kind, found.family) == ("weight folder", "marian")
        assert locate(beside / "marian").home is None

    def test_with_folders_that_hold_arrays_in_it(self, beside):
        """A folder that would be a step by what lies in it."""
        save_orbax(beside / "marian" / "params")
        (beside / "marian" / "checkpoints").mkdir()
        assert locate(beside / "marian").home is None
        (beside / "marian" / "config.json").unlink()  # its weights are its own all the same
        shutil.rmtree(beside / "marian" / "checkpoints")
        assert locate(beside / "marian").home is None

    def test_the_orbax_folder_has_the_config_beside_it(self, beside):
        CONFIG.save(beside.parent / "config.json")
        found = locate(beside / "jax_ckpt")
        assert (found.kind, found.home) == ("Orbax folder", beside)

    def test_the_nearest_config_is_that_of_a_step(self, beside):
        """Of a library it may be; what lies above it is of another model."""
        shutil.copyfile(beside / "marian" / "config.json", beside / "config.json")
        CONFIG.save(beside.parent / "config.json")
        assert locate(beside / "jax_ckpt").home is None

    def test_in_a_folder_of_checkpoints(self, marian, tmp_path):
        (tmp_path / "checkpoints").mkdir()
        place = marian.rename(tmp_path / "checkpoints" / "marian")
        CONFIG.save(tmp_path / "config.json")
        assert locate(place).home is None
