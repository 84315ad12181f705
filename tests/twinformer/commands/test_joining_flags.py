"""What a command says of devices and of other processes."""

from types import SimpleNamespace

import pytest
from fake_processes import Board, Threads
from messages import says

from training_recipe.distributed.joining import TORCHRUN, Joining
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import ALONE, World
from training_recipe.options.flags import parse
from training_recipe.options.joining import joining_of
from training_recipe.options.request import request_of
from transformer_spec import UserError
from twinformer import frameworks
from twinformer.training.joining import framework

THERE = ["--coordinator-address", "10.0.0.1:29500"]


def joining(*arguments: str) -> Joining:
    return joining_of(parse(list(arguments)).invocation, "cpu")


def test_nothing_said():
    found = joining()
    assert found == Joining(device="cpu", timeout=1800)
    assert not found.is_asked({}) and not found.is_asked({"RANK": "0"})
    assert found.is_asked(dict.fromkeys(TORCHRUN, "0"))
    assert found.is_asked({"RANK": "1", "WORLD_SIZE": "2"})
    assert not found.is_asked({"RANK": "0", "WORLD_SIZE": "1"})
    assert not joining("--distributed", "off").is_asked(dict.fromkeys(TORCHRUN, "0"))


def test_everything_said():
    found = joining(*THERE, "--num-processes", "4", "--process-id", "3", "--join-timeout", "9")
    assert found == Joining("jax", "cpu", None, "10.0.0.1:29500", 4, 3, 9)
    found = joining("--mesh", "fsdp=8,data=-1", "--distributed", "torchrun")
    assert found.mesh == Mesh(-1, 8) and found.mode == "torchrun" and found.is_asked({})


def test_a_run_that_goes_on_may_have_another_mesh():
    assert joining("--resume", "runs/a", "--mesh", "data=2").mesh == Mesh(2)


def test_from_python():
    asked = request_of({"mesh": "data=2", "distributed": "off"}).invocation
    assert joining_of(asked, "cpu").mesh == Mesh(2) and asked.distributed == "off"


FAULTS = {
    ("--mesh", "data=2,data=3"): ("--mesh 'data=2,data=3' names data twice", "data=2,fsdp=8"),
    ("--mesh", "data=-1,fsdp=-1"): ("leaves both sizes open",),
    ("--process-id", "0"): ("--process-id needs --coordinator-address HOST:PORT",),
    ("--num-processes", "2"): ("--num-processes needs --coordinator-address",),
    (*THERE, "--num-processes", "2", "--process-id", "2"): ("--process-id 2", "from 0 to 1"),
    (*THERE, "--distributed", "torchrun"): ("is for --distributed jax, not torchrun",),
    ("--coordinator-address", "host"): ("'host' is no HOST:PORT",),
    ("--distributed", "slurm"): ("--distributed: 'slurm' is not one of auto, jax, torchrun, off",),
    ("--join-timeout", "0"): ("--join-timeout: 0 is too small",),
    ("--resume-or-start", "a/b"): ("--resume-or-start a/b is not a plain name; give NAME",),
    ("--resume-or-start", ""): ("--resume-or-start is empty",),
    ("--resume-or-start", "a", "--out", "b"): ("--out and --resume-or-start both say where",),
    ("--resume-or-start", "a", "--resume", "b"): ("--resume-or-start starts a run",),
}


@pytest.mark.parametrize("arguments", FAULTS, ids=" ".join)
def test_faults(arguments):
    with pytest.raises(UserError) as caught:
        parse(list(arguments))
    assert len(caught.value.faults) == 1
    says(caught.value.faults[0], *FAULTS[arguments])


@pytest.mark.parametrize(
    ("given", "here"),
    [
        ("--world-size", "--num-processes N: torchrun says it by itself"),
        ("--rank", "--process-id N: torchrun says it by itself"),
        ("--dist-url", "--coordinator-address HOST:PORT"),
        ("--ddp", "--mesh data=N"),
        ("--fsdp", "--mesh fsdp=N"),
    ],
)
def test_usual_names(given, here):
    with pytest.raises(UserError) as caught:
        parse([given, "3"])
    assert f"here it is {here}" in caught.value.faults[0]


def test_help_says_what_a_batch_is(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "a batch is that of all devices together, however many there are" in said
    assert "--mesh data=-1" in said


class TestJoined:
    @pytest.fixture
    def left(self, monkeypatch) -> list[int]:
        """The numbers of processes that have said goodbye to the others, of a twin of one."""
        board = Board(1)
        world = World(Threads(board, 0), Mesh(data=1))
        monkeypatch.setattr(frameworks, "twin", lambda *_: SimpleNamespace(join=lambda _: world))
        return board.left

    def test_the_others_are_left_at_the_end(self, left):
        with frameworks.joined("torch", Joining("torchrun")) as world:
            assert world.processes.count == 1 and left == []
        assert left == [0]

    def test_and_after_an_error_of_all(self, left):
        with pytest.raises(UserError), frameworks.joined("torch", Joining("torchrun")):
            raise UserError("bad")
        assert left == [0]

    def test_alone_no_framework_is_asked(self, left):
        with frameworks.joined("torch", Joining("off")) as world:
            assert world is ALONE
        assert left == []


class TestFaultsBeforeJoining:
    def test_jax_processes_are_told(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        lost = parse(["--resume", "runs/a", *THERE])
        name, _, fault = framework(lost)
        assert name == "jax" and "runs/a is not a run folder" in str(fault)

    def test_others_are_ended_by_torchrun(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match="runs/a is not a run folder"):
            framework(parse(["--resume", "runs/a"]))

    def test_nothing_is_wrong(self):
        assert framework(parse(["--backend", "torch", "--device", "cpu"])) == ("torch", "cpu", None)
