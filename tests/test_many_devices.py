"""The page about many devices stays true: its commands and files are run, its flags exist."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from training_cases import SMALL, assert_same_curve, run, write_words

from training_recipe.distributed.mesh import Mesh, read_mesh
from training_recipe.options.flags import parse
from twinformer.commands.translate_flags import parser as translating

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGE = (DOCS / "many-devices.md").read_text(encoding="utf-8")
SCRIPTS = {name: (DOCS / f"slurm/{name}.sbatch").read_text() for name in ("jax", "torch")}
JOBSET = yaml.safe_load((DOCS / "kubernetes/jobset.yaml").read_text())
SKYPILOT = yaml.safe_load((DOCS / "skypilot/torch.yaml").read_text())
BLOCKS = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)).splitlines()
COMMANDS = "\n".join(BLOCKS).replace("\\\n   ", "").splitlines()
CORPUS = "--data corpus/train --source-lang en --target-lang de"
MODEL = "--preset base --batch-tokens 65536"
# What takes the place of a corpus and of sizes; the same in all runs.
TINY = [
    *(*SMALL, "--dtype", "float64", "--batch-shapes", "1", "--log-every", "1", "--steps", "3"),
    *("--evaluate-every", "3", "--save-every", "3"),
    *("--valid-examples", "0", "--test-examples", "0"),
]
ENOUGH = 150  # seconds, where the machine is busy
# Flags that are not this program's, nor torchrun's.
OTHERS = {
    *("--gpus-per-node", "--gpu-bind", "--gpus-per-task", "--signal", "--requeue", "--zone"),
    *("--cpus-per-task", "--worker", "--command", "--xla_force_host_platform_device_count"),
    "--xla_gpu_deterministic_ops",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with train.py, data and ``one``, the run of one process."""
    folder = tmp_path_factory.mktemp("many")
    write_words(folder)
    (folder / "train.py").symlink_to(ROOT / "train.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("torch" if find_spec("torch") else "jax", [*TINY, "--name", "one"]) == 0
    return folder


def small(command: str) -> str:
    """A command of the page with other data and sizes."""
    assert CORPUS in command and MODEL in command
    return command.replace(MODEL, "").replace(CORPUS, shlex.join(TINY))


def environment(**more: str) -> dict[str, str]:
    """That of a process of the user, who has this Python's programs and a SLURM that is none."""
    programs = [str(ROOT / "tests/fake_slurm"), str(Path(sys.executable).parent)]
    path = os.pathsep.join([*programs, os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | more


def begin(command: list[str], folder: Path, **more: str) -> subprocess.Popen[str]:
    """A command in a session of its own."""
    return subprocess.Popen(
        command, cwd=folder, env=environment(**more), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The status of a command and what it said; whatever it started ends with it."""
    try:
        said, _ = process.communicate(timeout=ENOUGH)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, said


def is_free(port: int) -> bool:
    with closing(socket.socket()) as place:
        return place.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    with closing(socket.socket()) as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


# The command goes to several processes below, and to torchrun in test_several_processes.py.
@pytest.mark.thorough
@pytest.mark.parametrize("name", ["torch", "jax"])
def test_one_machine(name, place):
    found = [line for line in COMMANDS if f"--backend {name} --mesh data=8" in line]
    command = small(found[0].replace("8 ", "2 ")) + f" --name {name}"
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    status, said = ended(begin(["bash", "-c", command], place, XLA_FLAGS=flags))
    assert status == 0, said
    assert "mesh data=2,fsdp=1" in said and "Warning" not in said
    assert_same_curve(place / "runs" / name, place / "runs/one")


def options(script: str) -> dict[str, str]:
    """What a script asks SLURM for."""
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script, re.MULTILINE)
    assert len(found) == script.count("#SBATCH")
    return dict(found)


def job(folder: Path, nodes: int, tasks: int) -> dict[str, str]:
    """What SLURM says to the script of a job of so many tasks on each node, all on this machine."""
    number = next(n for n in range(os.getpid(), 1 << 30) if is_free(61440 + n % 4096))
    return {
        "FAKE_SLURM": str(folder),
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NODELIST": ",".join(["localhost"] * nodes),
        "SLURM_NNODES": str(nodes),
        "SLURM_NTASKS": str(nodes * tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_CPUS_PER_TASK": "8",
    }


# Nodes, tasks on each, processes that torchrun starts, and the mesh of so many.
SIZES = {"jax": (1, 2, 1, Mesh(1, 2)), "torch": (2, 1, 1, Mesh(2, 1))}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["torch", "jax"])
def test_slurm(name, place, tmp_path):
    nodes, tasks, each, mesh = SIZES[name]
    script = small(SCRIPTS[name]).replace("data=2,fsdp=8", str(mesh))
    script = script.replace("--nproc-per-node 8", f"--nproc-per-node {each}")
    script = script.replace(":29500", f":{free_port()}").replace("en-de", f"slurm-{name}")
    (tmp_path / "job").write_text(script)
    status, said = ended(
        begin(["bash", str(tmp_path / "job")], place, **job(tmp_path, nodes, tasks))
    )
    assert status == 0, said
    assert f"2 processes, mesh {mesh}" in said
    assert not (tmp_path / "asked").exists()
    assert_same_curve(place / f"runs/slurm-{name}", place / "runs/one")


# A program that ends when it is told to, as torchrun and train.py do.
PROGRAM = """#!/bin/bash
trap 'exit {status}' TERM
touch "$FAKE_SLURM/started-$SLURM_PROCID"
for ((look = 0; look < {looks}; look++)); do
    sleep 0.1
done
"""


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize(("end", "asked"), [(143, True), (0, False)])
def test_a_job_whose_time_is_over_goes_into_the_queue_again(name, end, asked, tmp_path):
    for program in ("python", "torchrun"):
        (tmp_path / program).write_text(PROGRAM.format(status=end, looks=600))
        (tmp_path / program).chmod(0o700)
    nodes, tasks, _, _ = SIZES[name]
    given = job(tmp_path, nodes, tasks)
    path = os.pathsep.join([str(ROOT / "tests/fake_slurm"), str(tmp_path), os.environ["PATH"]])
    process = begin(["bash", str(DOCS / f"slurm/{name}.sbatch")], tmp_path, **given, PATH=path)
    while len(list(tmp_path.glob("started-*"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    status, said = ended(process)
    assert status == end, said
    noted = tmp_path / "asked"
    assert noted.exists() == asked
    assert not asked or noted.read_text() == f"requeue {given['SLURM_JOB_ID']}\n"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_job_has_as_many_processes_as_its_mesh_has_devices(name):
    asked = options(SCRIPTS[name])
    tasks = asked["gpus-per-node"] if name == "jax" else "1"
    assert asked["ntasks-per-node"] == tasks
    mesh = read_mesh(re.findall(r"--mesh (\S+)", SCRIPTS[name])[0])
    assert mesh.devices == int(asked["nodes"]) * int(asked["gpus-per-node"])
    assert asked["signal"] == "B:TERM@300" and "requeue" in asked
    assert name == "jax" or f"--nproc-per-node {asked['gpus-per-node']} " in SCRIPTS[name]


def of_train(text: str) -> list[str]:
    """The arguments of every command of this program in a text."""
    text = text.replace("\\\n", " ")
    found = re.findall(r'(?:train\.py|"\$program") (--(?:backend|resume) [^"&\n`]*)', text)
    assert found
    return found


@pytest.mark.parametrize("text", [PAGE, *SCRIPTS.values(), SKYPILOT["run"]])
def test_commands_are_those_of_the_program(text):
    for arguments in of_train(text):
        parse(shlex.split(arguments))


def test_translating_is_that_of_the_program():
    found = [line.split("translate.py ")[1] for line in BLOCKS if "translate.py " in line]
    assert len(found) == 2
    for words in found:
        given = translating().parse_args(shlex.split(words))
        assert read_mesh(given.mesh).devices == 8


def test_the_jobset():
    (replicated,) = JOBSET["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"][:2] == ["twinformer", "train"]
    asked = parse(container["command"][2:]).invocation
    chips = spec["parallelism"] * container["resources"]["limits"]["google.com/tpu"]
    assert read_mesh(asked.mesh or "").devices == chips == 16
    assert spec["completions"] == spec["parallelism"]
    assert asked.distributed == "jax" and asked.resume_or_start


def test_torchrun_takes_its_flags():
    parser = pytest.importorskip("torch.distributed.run").get_args_parser()
    texts = [*BLOCKS, SCRIPTS["torch"], SKYPILOT["run"]]
    commands = "\n".join(texts).replace("\\\n", " ").splitlines()
    found = [re.split(r"\btorchrun ", line)[1] for line in commands if "torchrun --" in line]
    assert len(found) == 4
    for words in found:
        words = re.sub(r'"\$SKYPILOT_NODE_RANK"|"29500"', "1", words).removesuffix("&")
        given = parser.parse_args(shlex.split(words))
        assert given.training_script in ("train.py", "translate.py", "$program")
        assert {"--backend", "--mesh"} <= set(given.training_script_args)


def test_every_flag_on_the_page_exists():
    known = {f"--{flag}" for script in SCRIPTS.values() for flag in options(script)} | OTHERS
    for words in ("train.py", "translate.py", "-m parity tpu"):
        command = [sys.executable, *words.split(), "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        known |= set(re.findall(r"--[\w-]+", done.stdout))
    if find_spec("torch"):
        from importlib import import_module

        known |= set(
            import_module("torch.distributed.run").get_args_parser()._option_string_actions
        )
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", PAGE))
    assert named <= known, named - known


def test_every_file_on_the_page_exists():
    linked = re.findall(r"\]\((\S+?\.(?:sbatch|yaml))\)", PAGE)
    assert len(linked) == 4
    for name in linked:
        assert (DOCS / name).is_file(), name
