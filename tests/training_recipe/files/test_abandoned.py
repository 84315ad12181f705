"""What a killed process left of a folder is taken away; what another one writes is not."""

import os
import subprocess
import sys

import pytest
from messages import says
from translate_cases import ROOT

from training_recipe.files.abandoned import remove_abandoned
from training_recipe.files.writing import folder_aside, partial_path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="asking for a process would end it")
KILLED = """
import os, pathlib, signal
from training_recipe.files.writing import folder_aside
with folder_aside(pathlib.Path("made")) as aside:
    (aside / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_of_a_killed_process(tmp_path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=environment, timeout=60)
    (left,) = tmp_path.iterdir()
    (tmp_path / ".made2.partial-1-00000000").mkdir()
    assert remove_abandoned(tmp_path / "other") == [] and left.exists()
    (note,) = remove_abandoned(tmp_path / "made")
    says(note, "removed", left)
    assert [path.name for path in tmp_path.iterdir()] == [".made2.partial-1-00000000"]


def test_of_this_process(tmp_path) -> None:
    with folder_aside(tmp_path / "made") as aside:
        (note,) = remove_abandoned(tmp_path / "made")
        says(note, aside, "is there")
        assert aside.is_dir()


@pytest.mark.parametrize("name", [".made.partial-0a1b2c3d", ".made.partial-1-00000000"])
def test_of_nobody_known_and_of_a_running_process(tmp_path, name) -> None:
    (tmp_path / name).mkdir()
    (note,) = remove_abandoned(tmp_path / "made")
    says(note, tmp_path / name, "is there")
    assert (tmp_path / name).is_dir()


def test_names_at_the_limit_have_room_for_a_hidden_one(tmp_path) -> None:
    path = tmp_path / ("ä" * 127)
    assert len(os.fsencode(partial_path(path).name)) < 255
    with folder_aside(path):
        pass
    assert path.is_dir()
