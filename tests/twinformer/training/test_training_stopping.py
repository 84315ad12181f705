"""``--patience``, and training that goes wrong: where it stops, what is said, what is kept."""

import json
import os

import numpy as np
import pytest
from messages import saying, says
from numpy_backend import NumpyBackend
from training_cases import SMALL, arrays, assert_same_run, metrics, run, signal_after

from training_recipe.backend import StepResult
from training_recipe.runs import progress
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.progress import EXPLODED, Progress
from transformer_spec import UserError
from twinformer.training.evaluation import judge as evaluation

# Judged by the loss of a model that only gets worse after step 6.
PATIENT = [
    *SMALL, "--valid-examples", "0", "--steps", "40", "--evaluate-every", "3", "--save-every", "8",
    "--patience", "3",
]  # fmt: skip


@pytest.fixture
def worse(monkeypatch):
    """Held-out loss is lowest after step 6."""
    train_step, evaluate, now = NumpyBackend.train_step, NumpyBackend.evaluate, [0]

    def step(self, batch, number, *rest):
        now[0] = number
        return train_step(self, batch, number, *rest)

    def loss(self, batch):
        _, tokens = evaluate(self, batch)
        return tokens * (1 + abs(now[0] - 6) / 100), tokens

    monkeypatch.setattr(NumpyBackend, "train_step", step)
    monkeypatch.setattr(NumpyBackend, "evaluate", loss)


class TestPatience:
    def test_stops_saved_and_says_so(self, place, quick, worse, capsys) -> None:
        assert run("numpy", [*PATIENT, "--name", "a"]) == 0
        found = metrics(place / "runs/a")
        evaluations = [(m["step"], m["since_best"]) for m in found if m["kind"] == "evaluation"]
        assert evaluations == [(3, 0), (6, 0), (9, 1), (12, 2), (15, 3)]
        assert found[-1]["kind"] == "test" and found[-1]["step"] == 6
        assert found[-1]["stopped_early_after"] == 15
        folder = RunFolder(place / "runs/a")
        assert folder.steps() == [6, 8, 15] and folder.best_or_newest().name == "step_00000006"
        kept = json.loads((folder.checkpoint(15) / "progress.json").read_text())
        assert kept["since_best"] == 3
        printed = capsys.readouterr().out
        says(printed, "stopped early", "step 15 of 40", "3 validations")
        assert "--resume runs/a --patience 0" in printed

    def test_resumed_it_stays_stopped_until_told(self, place, quick, worse) -> None:
        assert run("numpy", [*PATIENT, "--name", "a"]) == 0
        before = metrics(place / "runs/a")
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert metrics(place / "runs/a") == before
        assert run("numpy", ["--resume", "runs/a", "--patience", "4"]) == 0
        assert metrics(place / "runs/a")[-1]["stopped_early_after"] == 18
        assert run("numpy", ["--resume", "runs/a", "--patience", "0"]) == 0
        last = metrics(place / "runs/a")[-1]
        assert "stopped_early_after" not in last
        assert RunFolder(place / "runs/a").steps()[-1] == 40

    @pytest.mark.parametrize("step", [7, 9, 14, 15])
    def test_interrupted_and_resumed(self, step, place, quick, worse) -> None:
        assert run("numpy", [*PATIENT, "--name", "whole"]) == 0
        assert run("numpy", [*PATIENT, "--name", "a"], signal_after(step)) == 130
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert_same_run(place / "runs/a", place / "runs/whole")

    def test_improvement_starts_the_count_again(self, place, quick, monkeypatch) -> None:
        """Better, worse, better, worse: two are worse, but not two in a row."""
        losses = iter([3.0, 3.5, 2.0, 2.5])
        monkeypatch.setattr(evaluation, "held_out_loss", lambda *_: next(losses))
        few = ["--patience", "2", "--steps", "12"]
        assert run("numpy", [*PATIENT, *few, "--name", "a"]) == 0
        found = metrics(place / "runs/a")
        counts = [m["since_best"] for m in found if m["kind"] == "evaluation"]
        assert counts == [0, 1, 0, 1]
        assert "stopped_early_after" not in found[-1] and found[-1]["step"] == 9

    def test_the_mean_of_what_there_is(self, place, quick, worse) -> None:
        assert run("numpy", [*PATIENT, "--name", "a", "--average", "4"]) == 0
        assert metrics(place / "runs/a")[-1]["average_of"] == [8, 15]


def going_wrong(monkeypatch, at: int, change) -> None:
    """From step ``at`` on the result of a step is ``change(result)``."""
    train_step = NumpyBackend.train_step

    def step(self, batch, number, *rest):
        result = train_step(self, batch, number, *rest)
        return change(result) if number >= at else result

    monkeypatch.setattr(NumpyBackend, "train_step", step)


def nan_loss(result: StepResult) -> StepResult:
    return StepResult(float("nan"), result.tokens, result.gradient_norm)


def infinite_norm(result: StepResult) -> StepResult:
    return StepResult(result.loss_sum, result.tokens, float("inf"))


def explode(result: StepResult) -> StepResult:
    return StepResult(result.tokens * 9.0, result.tokens, result.gradient_norm)


WRONG = {
    nan_loss: ("loss is nan",),
    infinite_norm: ("norm of the gradient is inf",),
    explode: ("loss is 9 a token", "3 times the 2.398"),
}


class TestDivergence:
    @pytest.mark.parametrize("change", WRONG)
    @pytest.mark.parametrize("at", [7, 8, 9, 11])
    def test_named_and_the_last_good_checkpoint_kept(
        self, change, at, place, quick, capsys, monkeypatch
    ) -> None:
        """Steps before and after log lines, saves and validations; none is saved any more."""
        going_wrong(monkeypatch, at, change)
        assert run("numpy", [*SMALL, "--name", "a"]) == 2
        steps = RunFolder(place / "runs/a").steps()
        assert steps[-1] == max(step for step in (5, 8, 10) if step < at)
        message = capsys.readouterr().err
        epoch, index = divmod(at - 1, 4)
        where = f"step {at} (epoch {epoch + 1}, batch index {index})"
        says(message, "error:", "diverged", where, *WRONG[change])
        assert f"runs/a/checkpoints/step_{steps[-1]:08d} is the last good checkpoint" in message
        assert "--peak-lr" in message and message.count("\n") == 1
        assert message.endswith("or a smaller --clip-norm\n")
        assert not list(place.rglob("*.partial-*"))
        evaluated = [m["step"] for m in metrics(place / "runs/a") if m["kind"] == "evaluation"]
        assert not [step for step in evaluated if step >= at]

    def test_the_checkpoint_is_still_good(self, place, quick, monkeypatch) -> None:
        assert run("numpy", [*SMALL, "--name", "whole"]) == 0
        with monkeypatch.context() as patched:
            going_wrong(patched, 9, nan_loss)
            assert run("numpy", [*SMALL, "--name", "a"]) == 2
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert_same_run(place / "runs/a", place / "runs/whole")

    def test_interrupted_right_after(self, place, quick, capsys, monkeypatch) -> None:
        """Ctrl-C saves nothing that is broken."""
        going_wrong(monkeypatch, 7, infinite_norm)
        assert run("numpy", [*SMALL, "--name", "a"], signal_after(7)) == 2
        assert "diverged at step 7" in capsys.readouterr().err
        assert RunFolder(place / "runs/a").steps()[-1] == 5

    def test_at_the_first_step(self, place, quick, capsys, monkeypatch) -> None:
        going_wrong(monkeypatch, 1, nan_loss)
        assert run("numpy", [*SMALL, "--name", "a"]) == 2
        message = capsys.readouterr().err
        says(message, "diverged", "step 1 (epoch 1, batch index 0)")
        assert "no checkpoint was saved yet" in message
        assert not list((place / "runs/a/checkpoints").iterdir())

    def test_every_way_on_without_a_checkpoint_says_how(
        self, place, quick, capsys, monkeypatch
    ) -> None:
        """Other settings cannot go on: the folder is to be removed, or another name chosen."""
        with monkeypatch.context() as patched:
            going_wrong(patched, 1, nan_loss)
            assert run("numpy", [*SMALL, "--name", "a"]) == 2
            says(capsys.readouterr().err, "diverged", "another name", "runs/a is removed")
        slower = [*SMALL, "--peak-lr", "0.01"]
        assert run("numpy", [*slower, "--name", "a"]) == 2
        says(capsys.readouterr().err, "runs/a", "no checkpoint", "--resume", "remove", "--name")
        for again in ([*slower, "--resume-or-start", "a"], ["--resume", "runs/a", "--seed", "2"]):
            assert run("numpy", again) == 2
            says(capsys.readouterr().err, "runs/a", "no checkpoint", "remove", "another name")
        with pytest.raises(UserError, check=saying("no checkpoint", "--resume", "remove")):
            RunFolder(place / "runs/a").best_or_newest()
        assert run("numpy", [*SMALL, "--resume-or-start", "a"]) == 0

    def test_the_first_loss_survives_an_interruption(self, place, quick, monkeypatch) -> None:
        assert run("numpy", [*SMALL, "--name", "a"], signal_after(4)) == 130
        saved = Progress.load(place / "runs/a/checkpoints/step_00000004/progress.json")
        assert 2.3 < saved.first_loss < 2.5
        monkeypatch.setattr(progress, "EXPLODED", 0.5)
        assert run("numpy", ["--resume", "runs/a"]) == 2

    def test_checkpoints_from_before_it_was_recorded(self, place, quick) -> None:
        assert run("numpy", [*SMALL, "--name", "a"], signal_after(4)) == 130
        path = place / "runs/a/checkpoints/step_00000004/progress.json"
        content = json.loads(path.read_text())
        for name in ("first_loss", "since_best"):
            del content[name]
        path.write_text(json.dumps(content))
        assert run("numpy", ["--resume", "runs/a"]) == 0

    def test_learning_alone_never_explodes(self, place, quick) -> None:
        """Far from the bound, even at ten times the learning rate that is good."""
        assert run("numpy", [*SMALL, "--name", "a", "--peak-lr", "0.5"]) == 0
        losses = [m["loss"] for m in metrics(place / "runs/a") if m["kind"] == "train"]
        assert max(losses) < EXPLODED * 2.4 / 2

    @pytest.mark.usefixtures("both_frameworks")
    def test_a_backend_that_really_diverges(self, place, quick, capsys) -> None:
        wild = ["--peak-lr", "1e30", "--clip-norm", "0", "--log-every", "100", "--dropout", "0"]
        assert run("torch", [*SMALL, *wild, "--name", "a"]) == 2
        message = capsys.readouterr().err
        assert "training diverged at step" in message
        assert message.endswith("or --clip-norm 1\n")  # smaller than none there is not
        for folder in (place / "runs/a/checkpoints").iterdir():
            assert all(np.isfinite(array).all() for array in arrays(folder).values())
        assert not os.path.lexists(place / "runs/a/best")
