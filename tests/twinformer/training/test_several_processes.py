"""One run of two processes, in either framework, beside the same run of one."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from messages import says

pytest.importorskip("torch")
pytest.importorskip("torch.distributed.run")

import process_cases as cases
from training_cases import assert_same_curve, metrics, run, write_words

import train
from convert.checkpoints import read_checkpoint
from training_recipe.runs.integrity import damage

ROOT = Path(train.__file__).parent
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
OTHER = {"torch": "jax", "jax": "torch"}
ENOUGH = 150  # seconds, where the machine is busy


def environment() -> dict[str, str]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    one = {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    return os.environ | {"PYTHONPATH": path} | one


def launch(folder: Path, *words: str) -> subprocess.Popen:
    """Two processes, in a session of their own."""
    return subprocess.Popen(
        [*LAUNCH, *words], cwd=folder, env=environment(), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["torch", pytest.param("jax", marks=pytest.mark.thorough)])
def backend(request) -> str:
    pytest.importorskip(request.param)
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, backend) -> Path:
    """Where all is trained; ``one`` is the run of this process."""
    place = tmp_path_factory.mktemp("several")
    write_words(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run(backend, [*cases.EXACT, "--name", "one"]) == 0
    return place


@pytest.fixture(scope="module")
def outcomes(folder, backend) -> list[dict]:
    """What came of the runs of process_cases.py in each of two processes."""
    process = launch(folder, str(ROOT / "tests/process_cases.py"), backend)
    said, _ = process.communicate(timeout=ENOUGH)
    assert process.returncode == 0, said
    return [json.loads((folder / f"outcome-{rank}.json").read_text()) for rank in (0, 1)]


def digests(run_folder: Path, step: int = 12) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint, or of every array where files have other names."""
    place = run_folder / f"checkpoints/step_{step:08}"
    if not (place / "orbax").exists():
        return {part.name: digest(part.read_bytes()) for part in place.iterdir()}
    state = read_checkpoint(place)
    fields = {"weights": state.weights, "mu": state.first_moments, "nu": state.second_moments}
    return {
        f"{f} {n}": digest(array.tobytes()) for f, a in fields.items() for n, array in a.items()
    }


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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

    def test_resumed_by_one(self, folder, outcomes, monkeypatch, backend):
        monkeypatch.chdir(folder)
        shutil.copytree("runs/stopped", "runs/alone", symlinks=True)
        assert run(backend, ["--resume", "runs/alone"]) == 0
        assert_same_curve(folder / "runs/alone", folder / "runs/one")

    @pytest.mark.thorough
    def test_resumed_by_one_in_the_other_framework(self, folder, outcomes, monkeypatch, backend):
        pytest.importorskip(OTHER[backend])
        monkeypatch.chdir(folder)
        shutil.copytree("runs/stopped", "runs/changed", symlinks=True)
        assert run(OTHER[backend], ["--resume", "runs/changed"]) == 0
        assert_same_curve(folder / "runs/changed", folder / "runs/one")


def test_a_mean_of_split_weights(folder, outcomes, monkeypatch, backend):
    assert outcomes[1]["averaged"] == {"status": 0, "steps": 12}
    monkeypatch.chdir(folder)
    assert run(backend, [*cases.EXACT, "--name", "mean", "--average", "2"]) == 0
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


def longer(name: str, backend: str) -> list[str]:
    """What trains until it is stopped."""
    words = [*cases.EXACT, "--backend", backend, "--mesh", "data=2", "--name", name]
    words[words.index("--steps") + 1] = "100000"
    return words


def wait_for(checkpoint: Path, process: subprocess.Popen) -> None:
    began = time.monotonic()
    while not checkpoint.is_dir():
        assert process.poll() is None and time.monotonic() - began < ENOUGH
        time.sleep(0.05)


def assert_goes_on(folder: Path, name: str, backend: str, monkeypatch) -> None:
    """The last checkpoint of a run is whole, and one process goes on from there."""
    checkpoints = sorted((folder / "runs" / name / "checkpoints").glob("step_*"))
    assert damage(checkpoints[-1]) is None
    monkeypatch.chdir(folder)
    step = int(checkpoints[-1].name.removeprefix("step_"))
    assert run(backend, ["--resume", f"runs/{name}", "--steps", str(step + 2)]) == 0


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_one_that_is_killed_ends_all(folder, monkeypatch, backend):
    """By the command that users type."""
    if backend == "jax":
        pytest.skip("JAX's own way to start processes is tested below")
    process = launch(folder, str(ROOT / "train.py"), *longer("killed", backend))
    try:
        wait_for(folder / "runs/killed/checkpoints/step_00000008", process)
        pids = workers(process.pid)
        os.kill(pids[1], signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1, said
    assert not any(Path("/proc", str(pid)).exists() for pid in pids.values())
    assert_goes_on(folder, "killed", backend, monkeypatch)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# The command, for which a silent process is dead sooner than for a user.
IMPATIENT = """
import sys
from flax_transformer import processes
processes.HEARTBEAT = 5
from twinformer.commands.train import main
sys.exit(main())
"""


def by_coordinator(folder: Path, count: int, words: list[str], started: int) -> list:
    """The first ``started`` of ``count`` processes that find each other as JAX's do."""
    where = ["--coordinator-address", f"127.0.0.1:{free_port()}", "--num-processes", str(count)]
    return [
        subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, *words, *where, "--process-id", str(index)],
            cwd=folder,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        for index in range(started)
    ]


@pytest.fixture
def only_jax(backend):
    if backend != "jax":
        pytest.skip("PyTorch's processes are started by torchrun")


@pytest.mark.usefixtures("only_jax")
def test_one_that_is_killed_ends_all_that_jax_joined(folder, monkeypatch, backend):
    processes = by_coordinator(folder, 2, longer("killed", backend), 2)
    try:
        wait_for(folder / "runs/killed/checkpoints/step_00000008", processes[0])
        processes[1].kill()
        said, _ = processes[0].communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[0].returncode != 0
    assert "another process ended" in said or "another task died" in said, said
    assert_goes_on(folder, "killed", backend, monkeypatch)


@pytest.mark.usefixtures("only_jax")
def test_one_that_never_comes(folder):
    words = [*longer("late", "jax"), "--join-timeout", "3"]
    (process,) = by_coordinator(folder, 2, words, 1)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    says(said, "cannot join", "127.0.0.1", "3 seconds (--join-timeout)", "--process-id")
    assert not (folder / "runs/late").exists()
