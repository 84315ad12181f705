"""A run whose checkpoints are gone or damaged: what is said is true and names what is whole."""

import json
import shutil

import pytest
from convert_cases import fail, write_run
from messages import saying, says

from convert.conversion.opening import open_model
from training_recipe.runs.folder import RunFolder, already_there
from training_recipe.runs.integrity import seal
from training_recipe.runs.progress import Progress
from transformer_spec import UserError
from twinformer.training.checkpoints import choose_checkpoint


@pytest.fixture
def run(tmp_path):
    """A run of two whole checkpoints, whose records say so."""
    folder = write_run(tmp_path / "run", "torch", best=20)
    for step in (10, 20):
        place = folder / f"checkpoints/step_{step:08d}"
        (place / "progress.json").unlink()
        seal(place, Progress(step=step))
    (folder / "settings.json").write_text(json.dumps({"newest_checkpoint": 20}))
    return folder


@pytest.mark.parametrize("told_by", ["settings.json", "best"])
def test_all_are_gone(told_by, run, capsys) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    (run / {"settings.json": "best", "best": "settings.json"}[told_by]).unlink()
    parts = (run, "no checkpoint any more", "step 20", "cannot go on", "train anew")
    said = fail(capsys, run, run.parent / "x", "--to", "torch")
    says(said, *parts)
    assert "--resume" not in said
    with pytest.raises(UserError, check=saying(*parts)):
        choose_checkpoint(RunFolder(run), 20, None)
    (run / "settings.json").touch()
    says(already_there(run), *parts, "another name")


def test_none_was_made_yet(run, capsys) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    (run / "best").unlink()
    (run / "settings.json").write_text(json.dumps({"newest_checkpoint": None}))
    said = fail(capsys, run, run.parent / "x", "--to", "torch")
    says(said, run, "no checkpoint yet", "--resume")
    assert choose_checkpoint(RunFolder(run), None, None) is None


def cut(file):
    file.write_bytes(file.read_bytes()[:200])


def change(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, change, lambda file: file.unlink()])
def test_the_one_that_is_whole_is_named(damage, run, capsys) -> None:
    damage(run / "checkpoints/step_00000020/model.safetensors")
    whole = run / "checkpoints/step_00000010"
    said = fail(capsys, run, run.parent / "x", "--to", "torch")
    says(said, whole, "is whole", "--checkpoint 10")
    with pytest.raises(UserError, check=saying(whole, "--checkpoint 10")):
        open_model(run).found.content.tensors.read_all()
    cut(whole / "model.safetensors")
    assert "is whole" not in fail(capsys, run, run.parent / "x", "--to", "torch")
