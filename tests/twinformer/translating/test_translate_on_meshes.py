"""Texts spread over several devices: what one device writes, written once, in the same order."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import translate_mesh_cases as cases
from messages import says
from thread_processes import in_processes
from translate_cases import ROOT, make_run
from translate_mesh_cases import CALLS, ONE, TEXTS

from training_recipe.distributed.joining import Joining
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import World
from transformer_spec import UserError
from twinformer import frameworks
from twinformer.translating.translator import Translator

pytestmark = pytest.mark.usefixtures("both_frameworks")
SCRIPT = str(ROOT / "tests/translate_mesh_cases.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# In JAX, where each compiles, fewer calls.
ON_TWO = ["greedy", "beam", "sample", "one text", "too long", "drawn", "exact"]
ALIKE = ("greedy", "one text")  # for --thorough alone, in JAX
RUNS = [("torch", 2, list(CALLS)), ("jax", 2, ON_TWO), ("jax", 3, ["beam", "exact"])]
THOROUGH = ("jax", 3)
GOOD = ["greedy", "beam", "generate", "sample", "one text", "no text", "skipped", "to a file"]
WRONG = ["too long", "to a full disk", "no checkpoint", "unlike"]


def environment(devices: int) -> dict[str, str]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    jax = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    return os.environ | jax | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(folder: Path, command: list[str], devices: int = 1, given: str | None = None):
    return subprocess.run(
        command, cwd=folder, env=environment(devices), input=given, text=True, timeout=200,
        capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("meshes")
    (place / "texts").write_text("".join(f"{text}\n" for text in TEXTS))
    for backend in ("torch", "jax"):
        make_run(place / f"run-{backend}", backend)
        make_run(place / f"exact-{backend}", backend, dtype=np.float64)
    return place


@pytest.fixture(scope="module")
def found(folder, thorough) -> dict:
    """(backend, devices, number of the process) -> what came of each call there."""
    left_out = () if thorough else ALIKE
    cases.main(folder, "torch", 1, [])
    cases.main(folder, "jax", 1, [name for name in ON_TWO if name not in left_out])
    for backend, devices, names in RUNS:
        if (backend, devices) == THOROUGH and not thorough:
            continue
        start = LAUNCH if (backend, devices) == ("torch", 2) else [sys.executable]
        if backend == "jax":
            names = [name for name in names if name not in left_out]
        command = [*start, SCRIPT, str(folder), backend, str(devices), *names]
        done = run(folder, command, devices if backend == "jax" else 1)
        assert done.returncode == 0, done.stderr
    read = {}
    for path in folder.glob("calls-*.json"):
        _, backend, devices, index = path.stem.split("-")
        read[backend, int(devices), int(index)] = json.loads(path.read_text())
    return read


def case(backend: str, devices: int, *name: str):
    """A case of a run, which is for --thorough alone as the run or its call is."""
    alone = (backend, devices) == THOROUGH or (backend == "jax" and name[:1] in zip(ALIKE))
    marks = pytest.mark.thorough if alone else ()
    return pytest.param(backend, devices, *name, marks=marks)


@pytest.mark.parametrize(("backend", "devices", "name"), [
    case(backend, devices, name) for backend, devices, names in RUNS
    for name in names if name not in WRONG
])  # fmt: skip
def test_what_one_device_writes(found, backend, devices, name):
    one, other = found[backend, 1, 0][name], found[backend, devices, 0][name]
    assert one["status"] == 0 and one == other


@pytest.mark.parametrize(("backend", "devices"), [case(*run[:2]) for run in RUNS])
def test_exact_scores(found, backend, devices):
    one, other = (found[backend, count, 0]["python"] for count in (1, devices))
    assert len(one) == len(TEXTS)
    for (text, score), (same, other_score) in zip(
        itertools.chain(*one), itertools.chain(*other), strict=True
    ):
        assert text == same and abs(score - other_score) <= 1e-12


@pytest.mark.parametrize("name", [*GOOD, "drawn", "exact"])
def test_the_others_say_and_write_nothing(found, name):
    assert found["torch", 2, 1][name] == {"status": 0, "out": "", "said": ""}


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_pictures(found, folder, backend):
    for number in (1, 3):
        one, two = (folder / f"{backend}-{count}-{number}.png" for count in (1, 2))
        assert one.read_bytes() == two.read_bytes()
    assert not (folder / f"{backend}-2-2.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk is full here")
def test_a_full_disk_is_told_to_all(found):
    one, other = (found["torch", 2, index]["to a full disk"] for index in (0, 1))
    assert one["status"] == other["status"] == 2
    says(one["said"], "error: cannot write --output /dev/full")
    says(other["said"], "error: process 0 of 2: cannot write --output /dev/full")


@pytest.mark.parametrize("name", ["too long", "no checkpoint"])
def test_an_error_of_one_is_an_error_of_all(found, name):
    one, *others = (found[key][name] for key in (("torch", 1, 0), ("torch", 2, 0), ("torch", 2, 1)))
    assert [each["status"] for each in others] == [2, 2] and others[0] == one
    told = one["said"].replace("error: ", "error: process 0 of 2: ")
    assert others[1] == {"status": 2, "out": "", "said": told}


def test_processes_that_are_asked_for_other_things(found):
    for index in (0, 1):
        said = found["torch", 2, index]["unlike"]
        assert said["status"] == 2 and said["out"] == ""
        says(said["said"], "process 1 of 2", "the search", "'max_length': 4", "'max_length': 3")
        says(found["torch", 2, index]["other"], "the texts or the search of process 1 of 2")


@pytest.mark.parametrize(
    ("made", "asked", "named"),
    [
        ({"batch_size": 3}, {}, "batch_size (3 and 2)"),
        ({}, {"skip_long": True}, "skip_long (True and False)"),
        ({}, {"truncate": True}, "truncate (True and False)"),
    ],
    ids=["batch size", "skipped", "cut"],
)
def test_processes_that_would_decode_other_batches(runs, made, asked, named):
    def work(processes) -> object:
        here = {} if processes.first else made
        world = World(processes, Mesh(data=2))
        translator = Translator(runs["torch"], **{"batch_size": 2, **here}, world=world)
        return translator(TEXTS, **({} if processes.first else asked))

    for said in in_processes(2, work)[0]:
        assert isinstance(said, UserError)
        says(str(said), "the texts or the search of process 1 of 2", named)


def test_processes_with_other_vocabularies(runs, monkeypatch):
    read = Translator.encode

    def encode(self, *given):
        found = read(self, *given)
        if not self.world.processes.first:
            found.ids[0].reverse()
        return found

    monkeypatch.setattr(Translator, "encode", encode)
    work = lambda processes: Translator(runs["torch"], world=World(processes, Mesh(2)))("abc")  # noqa: E731
    for said in in_processes(2, work)[0]:
        assert isinstance(said, UserError)
        says(str(said), "the tokens of the texts of process 1 of 2 differ")


@pytest.mark.thorough
def test_standard_input_by_torchrun(found, folder):
    command = [*LAUNCH, str(ROOT / "translate.py"), "run-torch", "--mesh", "data=2", "--beam", "1"]
    done = run(folder, command, given=(folder / "texts").read_text())
    assert done.returncode == 0, done.stderr
    assert done.stdout == found["torch", 1, 0]["greedy"]["out"]


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["--mesh", "fsdp=2"], ("splits the weights", "give data=N")),
            (["--mesh", "data=2,data=2"], ("names data twice",)),
            (["--mesh", "data=7"], ("is of 7 devices, and there is 1",)),
            (["--process-id", "0"], ("needs --coordinator-address",)),
            (["--distributed", "mpi"], ("'mpi' is not one of auto, jax, torchrun, off",)),
            (["--join-timeout", "soon"], ("--join-timeout: 'soon' is not a whole number",)),
            (["--distributed", "torchrun"], ("torchrun",)),
        ],
        ids=" ".join,
    )
    def test_flags(self, runs, call, arguments, parts):
        for backend in ("torch", "jax"):
            status, lines, said = call(runs[backend], *ONE, *arguments)
            assert (status, lines) == (2, []) and len(said.splitlines()) == 1
            says(said, *parts)

    def test_from_python(self, runs):
        with pytest.raises(UserError, match="splits the weights"):
            Translator(runs["torch"], mesh="data=1,fsdp=2")
        with pytest.raises(
            UserError, match="is of 3 devices, and there is 1.*XLA_FLAGS=--xla_force"
        ):
            Translator(runs["jax"], mesh="data=3")
        with pytest.raises(UserError, match="mesh is 2; give a text"):
            Translator(runs["jax"], mesh=2)  # pyright: ignore[reportArgumentType]


def test_processes_once_joined_stay_joined(monkeypatch):
    class Joined:
        count, leave = 2, None

    worlds = iter([World(Joined(), Mesh(2))])  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(frameworks, "JOINED", {})
    monkeypatch.setattr(frameworks.atexit, "register", lambda leave: None)
    twin = type("twin", (), {"join": staticmethod(lambda joining: next(worlds))})
    monkeypatch.setattr(frameworks, "twin", lambda name, part: twin)
    first = frameworks.joined_for_good("torch", Joining())
    again = frameworks.joined_for_good("torch", Joining(mesh=Mesh(data=-1)))
    assert again.processes is first.processes and again.mesh == Mesh(2)
