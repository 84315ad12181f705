"""The training loop: what it writes, shows and waits for."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from messages import says
from numpy_backend import NumpyBackend
from training_cases import SMALL, metrics, run

from training_recipe.backend import StepResult
from training_recipe.runs.curves import draw_curves
from twinformer.training import loop


class TestRunFolder:
    def test_layout(self, whole):
        folder = whole("numpy")
        assert sorted(part.name for part in folder.iterdir()) == [
            "best", "checkpoints", "config.json", "curves.png", "metrics.jsonl", "settings.json",
            "tensorboard", "vocabulary",
        ]  # fmt: skip
        assert sorted(p.name for p in (folder / "vocabulary").iterdir()) == [
            "source.json", "target.json",
        ]  # fmt: skip
        assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert [p.name for p in (folder / "tensorboard").iterdir()][0].startswith("events.out.tfe")
        record = json.loads((folder / "settings.json").read_text())
        assert record["backend"] == "torch" and record["newest_checkpoint"] == 12
        assert record["settings"]["peak_lr"] == 0.05 and "numpy" in record["versions"]

    def test_metrics(self, whole):
        lines = metrics(whole("numpy"))
        assert [(line["kind"], line["step"]) for line in lines if line["kind"] != "test"] == [
            ("train", 3), ("evaluation", 5), ("train", 6), ("train", 9), ("evaluation", 10),
            ("train", 12), ("evaluation", 12),
        ]  # fmt: skip
        losses = [line["loss"] for line in lines if line["kind"] == "train"]
        assert losses == sorted(losses, reverse=True)
        assert lines[0]["learning_rate"] == 0.05 and lines[0]["gradient_norm"] > 0
        assert set(lines[1]["scores"]) == {"BLEU", "chrF"}

    def test_keeps_the_newest_and_the_best(self, place, quick):
        run("numpy", [*SMALL, "--name", "a", "--keep", "1", "--save-every", "1"])
        best = int(os.readlink(place / "runs/a/best").removeprefix("checkpoints/step_"))
        kept = [int(p.name.removeprefix("step_")) for p in (place / "runs/a/checkpoints").iterdir()]
        assert sorted(kept) == sorted({best, 12})

    @pytest.mark.parametrize("minutes", [0, 0.5, 60])
    def test_saves_by_the_clock_too(self, place, quick, monkeypatch, minutes):
        """A step takes 20 seconds, so that half a minute is over with every second one."""
        done = [0]
        monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: 20.0 * done[-1]))
        rare = ["--save-every", "100", "--evaluate-every", "100", "--keep", "100"]
        given = [*SMALL, *rare, "--save-minutes", str(minutes), "--name", "a"]
        assert run("numpy", given, after_step=done.append) == 0
        kept = sorted(path.name for path in (place / "runs/a/checkpoints").iterdir())
        steps = [int(name.removeprefix("step_")) for name in kept]
        assert steps == ([2, 4, 6, 8, 10, 12] if minutes == 0.5 else [12])

    def test_it_learns(self, place, quick, capsys):
        longer = ["--steps", "60", "--log-every", "60", "--evaluate-every", "60"]
        assert run("numpy", [*SMALL, *longer, "--name", "a"]) == 0
        assert metrics(place / "runs/a")[-1]["scores"]["BLEU"] == pytest.approx(100)
        printed = capsys.readouterr().out
        for words in (
            "2 shapes",
            "% padding",
            "parameters",
            "never saw",
            "twinformer translate runs/a",
        ):
            assert words in printed

    def test_what_is_trained_on_is_not_called_unseen(self, place, quick, capsys):
        assert run("numpy", [*SMALL, "--test", "words.tsv", "--name", "a"]) == 0
        printed = capsys.readouterr().out
        says(printed, "note:", "test", "pairs", "training data", "remembered")
        says(printed, "test of", "60 examples", "with sources of the training data")
        says(printed, "sentences the model never saw:")  # those of the validation data
        assert run("numpy", [*SMALL, *("--valid", "words.tsv", "--test", "words.tsv")]) == 0
        printed = capsys.readouterr().out
        assert "never saw" not in printed
        says(printed, "sentences of the training data:")

    def test_no_scores_without_examples_to_decode(self, place, quick):
        none = ["--valid-examples", "0", "--test-examples", "0"]
        assert run("numpy", [*SMALL, *none, "--name", "a"]) == 0
        evaluations = [m for m in metrics(place / "runs/a") if m["kind"] == "evaluation"]
        assert [m["best"] for m in evaluations] == [True] * 3  # judged by the loss, which falls
        assert all(m["scores"] == {} for m in evaluations)


def test_divergence_is_one_clear_error(place, quick, capsys, monkeypatch):
    monkeypatch.setattr(
        NumpyBackend, "train_step", lambda *_: StepResult(float("nan"), 1, float("inf"))
    )
    assert run("numpy", [*SMALL, "--name", "a"]) == 2
    assert "training diverged" in capsys.readouterr().err
    assert not list((place / "runs/a/checkpoints").iterdir())


def test_results_are_read_only_at_log_steps(place, quick, monkeypatch):
    step_of_reading, now = [], [0]

    class OnDevice(float):
        def __float__(self):
            step_of_reading.append(now[0])
            return float.__float__(self)

    train_step = NumpyBackend.train_step

    def lazy(self, batches, step, learning_rate):
        now[0] = step
        result = train_step(self, batches, step, learning_rate)
        return StepResult(OnDevice(result.loss_sum), result.tokens, OnDevice(result.gradient_norm))

    monkeypatch.setattr(NumpyBackend, "train_step", lazy)
    run("numpy", [*SMALL, "--name", "a", "--save-every", "12", "--evaluate-every", "12"])
    assert set(step_of_reading) == {3, 6, 9, 12}


def test_a_tokenization_that_is_not_there_is_said_before_training(place, capsys):
    assert run("numpy", [*SMALL, "--name", "a", "--bleu-tokenize", "x"]) == 2
    says(capsys.readouterr().err, "--bleu-tokenize x", "13a")
    assert not (place / "runs/a").exists()


def test_what_the_clock_says_is_of_training_alone(place, quick, monkeypatch) -> None:
    """Steps that wait for the device are waited for before the clock stops for a save."""
    training, waiting = [], []
    made, paused = loop.Training.__init__, loop.Speed.paused

    def init(self, started) -> None:
        made(self, started)
        training.append(self)

    def pause(self):
        waiting.append(len(training[0].progress.window.pending))
        return paused(self)

    monkeypatch.setattr(loop.Training, "__init__", init)
    monkeypatch.setattr(loop.Speed, "paused", pause)
    assert run("numpy", [*SMALL, "--name", "a"]) == 0
    assert len(waiting) > 4 and not any(waiting)


@pytest.mark.parametrize("name", ["a$_$b", "\ud55c\uad6d\uc5b4"])
def test_a_picture_of_a_run_of_any_name(name, place, quick, monkeypatch, recwarn) -> None:
    monkeypatch.setattr(loop, "draw_curves", draw_curves)
    assert run("numpy", [*SMALL, "--name", name]) == 0
    assert (place / "runs" / name / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not [str(w.message) for w in recwarn if "Glyph" in str(w.message)]


def test_notes_before_a_run(place, quick, capsys) -> None:
    """What a killed process left of a run of this name, and a rate that never is at its peak."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = place / "runs" / f".a.partial-{ended.pid}-00000000"
    left.mkdir(parents=True)
    assert run("numpy", [*SMALL, "--name", "a", "--warmup-steps", "12"]) == 0
    said = capsys.readouterr().out
    says(said, "removed", left.relative_to(place), "killed")
    says(said, "rate rises in all 12 steps", "--warmup-steps is 12")
    assert not left.exists()


@pytest.mark.parametrize("tokens", [1, 6, 128])
def test_pairs_that_are_larger_than_a_batch_are_noted(tokens, place, quick, capsys) -> None:
    """The longest word has seven letters, and an end."""
    short = ["--batch-tokens", str(tokens), "--steps", "1", "--name", "a"]
    assert run("numpy", [*SMALL, *short]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if "note:" in line]
    said = [note for note in notes if "--batch-tokens" in note]
    assert len(said) == (tokens < 8)
    if said:
        says(said, f"--batch-tokens {tokens}", "8 tokens", "a batch of its own")
