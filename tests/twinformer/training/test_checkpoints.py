"""Full disks and damaged checkpoints: the older checkpoint survives and the error names it."""

import dataclasses
import errno
import json
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from messages import says
from training_cases import SMALL, assert_same_run, run, signal_after

from convert.checkpoints import read_checkpoint, write_torch_checkpoint
from training_recipe.runs.folder import RunFolder
from twinformer.training.checkpoints import DiskFullError, disk_full_is_clear


class TestFullDisk:
    def stopped(self, place, capsys, in_save):
        assert run("numpy", [*SMALL, "--name", "a"], in_save=in_save) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: cannot save checkpoint") or "cannot save step_" in message
        assert message.count("\n") == 1
        assert "disk is full" in message and "step_00000005 is whole" in message
        assert "--resume runs/a" in message
        assert not list(place.rglob("*.partial-*"))

    @pytest.mark.parametrize(
        "error",
        [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("IO: (os error 28)")],
    )
    def test_older_checkpoint_survives(self, error, place, whole, capsys, quick):
        def full(folder):
            if (place / "runs/a/checkpoints/step_00000005").exists():
                raise error

        self.stopped(place, capsys, full)
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert_same_run(place / "runs/a", whole("numpy"))

    def test_real_limit(self, place, whole, capsys, quick):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)

        def write_too_much(folder):
            if (place / "runs/a/checkpoints/step_00000005").exists():
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
                (folder / "large").write_bytes(bytes(200_000))

        try:
            self.stopped(place, capsys, write_too_much)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert_same_run(place / "runs/a", whole("numpy"))

    def test_other_errors_are_not_hidden(self, place, quick):
        def broken(folder):
            raise ZeroDivisionError("a bug")

        with pytest.raises(ZeroDivisionError):
            run("numpy", [*SMALL, "--name", "a"], in_save=broken)
        assert not list(place.rglob("*.partial-*"))


class TestDamagedCheckpoints:
    def stopped(self, place):
        assert run("numpy", [*SMALL, "--name", "a", "--keep", "9"], signal_after(9)) == 130
        return place / "runs/a/checkpoints"

    def resume_fails(self, capsys, *more):
        capsys.readouterr()
        assert run("numpy", ["--resume", "runs/a", *more]) == 2
        return capsys.readouterr().err

    @pytest.mark.parametrize("name", ["model.safetensors", "progress.json"])
    def test_truncated(self, name, place, whole, quick, capsys):
        folder = self.stopped(place)
        path = folder / "step_00000009" / name
        os.truncate(path, path.stat().st_size // 2)
        message = self.resume_fails(capsys)
        assert f"runs/a/checkpoints/step_00000009/{name} is" in message
        assert "complete: step_00000004, step_00000005, step_00000008" in message
        assert "--resume runs/a --from-step 8" in message
        assert run("numpy", ["--resume", "runs/a", "--from-step", "5", "--keep", "9"]) == 0
        assert (folder / "set_aside_step_00000009").is_dir()
        assert_same_run_but_set_aside(place / "runs/a", whole("numpy"))

    def test_same_size_other_bytes(self, place, quick, capsys):
        path = self.stopped(place) / "step_00000009/model.safetensors"
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        path.write_bytes(content)
        assert "model.safetensors is damaged" in self.resume_fails(capsys)

    def test_file_missing(self, place, quick, capsys):
        (self.stopped(place) / "step_00000009/model.safetensors").unlink()
        assert "step_00000009/model.safetensors is missing" in self.resume_fails(capsys)

    def test_newest_missing(self, place, quick, capsys):
        folder = self.stopped(place)
        (folder / "step_00000009").rename(place / "elsewhere")
        message = self.resume_fails(capsys)
        assert "step_00000009 does not exist" in message and "--from-step 8" in message

    def test_unknown_step(self, place, quick, capsys):
        self.stopped(place)
        message = self.resume_fails(capsys, "--from-step", "7")
        assert "step_00000007 does not exist" in message and "step_00000008" in message

    def test_does_not_fit_the_config(self, place, quick, capsys):
        folder = self.stopped(place) / "step_00000009"
        held = read_checkpoint(folder).changed(lambda _, arrays: dict(arrays))
        weights = {**held.weights, "encoder.embedding.weight": np.zeros((2, 2), np.float32)}
        write_torch_checkpoint(folder, dataclasses.replace(held, weights=weights))
        progress = json.loads((folder / "progress.json").read_text())
        del progress["files"]  # as a conversion leaves it
        (folder / "progress.json").write_text(json.dumps(progress))
        message = self.resume_fails(capsys)
        assert "runs/a/checkpoints/step_00000009 does not fit the config" in message
        says(message, "shape", "'encoder.embedding.weight'", "float32 [2, 2]")


def assert_same_run_but_set_aside(folder, expected):
    for part in (folder / "checkpoints").glob("set_aside_*"):
        part.rename(folder.parent / part.name)
    assert_same_run(folder, expected)


def test_a_full_disk_before_there_is_a_run(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFullError) as told,
        disk_full_is_clear(RunFolder(tmp_path / "a"), "cannot make the run folder"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "nothing of the run is there; make room, then start it again" in str(told.value)
    assert "--resume" not in str(told.value)
