"""One run of two processes that torchrun starts, beside the same run of one."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from messages import says

pytest.importorskip("torch")
pytest.importorskip("torch.distributed.run")

import torchrun_cases as cases
from training_cases import assert_same_curve, metrics, run, write_words

import train
from training_recipe.runs.integrity import damage

ROOT = Path(train.__file__).parent
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENOUGH = 150  # seconds, where the machine is busy


def environment() -> dict[str, str]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def launch(folder: Path, *words: str) -> subprocess.Popen:
    """Two processes, in a session of their own."""
    return subprocess.Popen(
        [*LAUNCH, *words], cwd=folder, env=environment(), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where all is trained; ``one`` is the run of this process."""
    place = tmp_path_factory.mktemp("several")
    write_words(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run("torch", [*cases.EXACT, "--name", "one"]) == 0
    return place


@pytest.fixture(scope="module")
def outcomes(folder) -> list[dict]:
    """What came of the runs of torchrun_cases.py in each of two processes."""
    process = launch(folder, str(ROOT / "tests/torchrun_cases.py"))
    said, _ = process.communicate(timeout=ENOUGH)
    assert process.returncode == 0, said
    return [json.loads((folder / f"outcome-{rank}.json").read_text()) for rank in (0, 1)]


def digests(run_folder: Path, step: int = 12) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint."""
    parts = (run_folder / f"checkpoints/step_{step:08}").iterdir()
    return {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}


def test_the_curve_of_one_process(folder, outcomes):
    assert outcomes[0]["whole"] == outcomes[1]["whole"] == {"status": 0, "steps": 12}
    one, two = folder / "runs/one", folder / "runs/whole"
    assert_same_curve(two, one)
    for name in ("config.json", "settings.json"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    for path in (one / "vocabulary").iterdir():
        assert (two / "vocabulary" / path.name).read_bytes() == path.read_bytes()
    assert not list(two.rglob(".*partial*"))


class TestStopped:
    def test_all_after_the_same_step(self, folder, outcomes):
        one, other = (each["stopped"] for each in outcomes)
        assert one == other and one["status"] == 128 + signal.SIGTERM
        assert one["steps"] in (cases.STOPPED_AFTER, cases.STOPPED_AFTER + 1)
        assert (folder / f"runs/stopped/checkpoints/step_{one['steps']:08}").is_dir()

    def test_resumed_on_as_many_it_has_the_same_bits(self, folder, outcomes):
        assert outcomes[1]["resumed"] == {"status": 0, "steps": 12}
        assert digests(folder / "runs/resumed") == digests(folder / "runs/whole")
        assert metrics(folder / "runs/resumed") == metrics(folder / "runs/whole")

    def test_resumed_on_another_mesh(self, folder, outcomes):
        assert outcomes[1]["split"] == {"status": 0, "steps": 12}
        assert_same_curve(folder / "runs/split", folder / "runs/one")

    def test_resumed_by_one(self, folder, outcomes, monkeypatch):
        monkeypatch.chdir(folder)
        shutil.copytree("runs/stopped", "runs/alone", symlinks=True)
        assert run("torch", ["--resume", "runs/alone"]) == 0
        assert_same_curve(folder / "runs/alone", folder / "runs/one")


def test_a_mean_of_split_weights(folder, outcomes, monkeypatch):
    assert outcomes[1]["averaged"] == {"status": 0, "steps": 12}
    monkeypatch.chdir(folder)
    assert run("torch", [*cases.EXACT, "--name", "mean", "--average", "2"]) == 0
    assert_same_curve(folder / "runs/averaged", folder / "runs/mean")


def test_what_is_no_number_is_the_same_error(folder, outcomes):
    one, other = (each["poisoned"]["error"] for each in outcomes)
    assert one == other
    says(one, f"training diverged at step {cases.STOPPED_AFTER + 1}", "step_00000005", "last good")
    assert not (folder / "runs/poisoned/checkpoints/step_00000008").exists()


def test_a_full_disk_is_told_to_all(folder, outcomes):
    for each in outcomes:
        said = each["full"]["error"]
        says(said, "cannot save step_00000008: the disk is full", "step_00000005 is whole")
    assert sorted(part.name for part in (folder / "runs/full/checkpoints").iterdir()) == [
        "step_00000004", "step_00000005",
    ]  # fmt: skip


def test_other_settings_are_an_error_of_all(folder, outcomes):
    one, other = (each["other"]["error"] for each in outcomes)
    assert one == other
    says(one, "process 1 of 2", "--seed (5 and None)")
    assert not (folder / "runs/other").exists()


def workers(launcher: int) -> dict[int, int]:
    """The processes that a launcher has started, by rank."""
    found = {}
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdecimal() and f"PPid:\t{launcher}\n" in (place / "status").read_text():
                said = (place / "environ").read_bytes().split(b"\0")
                ranks = [part[5:] for part in said if part.startswith(b"RANK=")]
                found.update({int(rank): int(place.name) for rank in ranks})
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_one_that_is_killed_ends_all(folder, monkeypatch):
    """By the command that users type; the last checkpoint is whole, and it goes on from there."""
    longer = [*cases.EXACT, "--mesh", "data=2", "--name", "killed"]
    longer[longer.index("--steps") + 1] = "100000"
    process, saved = launch(folder, str(ROOT / "train.py"), *longer), folder / "runs/killed"
    try:
        began = time.monotonic()
        while not (saved / "checkpoints/step_00000008").is_dir():
            assert process.poll() is None and time.monotonic() - began < ENOUGH
            time.sleep(0.05)
        pids = workers(process.pid)
        os.kill(pids[1], signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1, said
    assert not any(Path("/proc", str(pid)).exists() for pid in pids.values())
    checkpoints = sorted((saved / "checkpoints").glob("step_*"))
    assert damage(checkpoints[-1]) is None
    monkeypatch.chdir(folder)
    step = int(checkpoints[-1].name.removeprefix("step_"))
    assert run("torch", ["--resume", "runs/killed", "--steps", str(step + 2)]) == 0
