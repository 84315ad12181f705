"""Stopping a run anywhere, by whatever signal, and going on changes nothing: not one bit.

``RESUMABLE`` names the backends checked; a backend is stopped at its ``MOMENTS`` and ``KILLS``.
"""

import json
import os
import signal

import pytest
from messages import says
from numpy_backend import NumpyBackend
from training_cases import (
    SMALL,
    assert_same_run,
    halve_a_file,
    launch,
    launch_code,
    metrics,
    run,
    signal_after,
    write_words,
)

from training_recipe.batching import batches
from training_recipe.corpora.corpus import load_corpus

RESUMABLE = ("numpy", "torch", "jax")
MOMENTS = {"numpy": range(1, 13), "torch": (1, 5, 8, 11), "jax": (5, 7)}
KILLED = {
    "numpy": ("step:2", "step:7", "save:1", "save:3", "saved:2"),
    "torch": ("step:7", "save:3"),
    "jax": ("step:7", "save:3"),
}
CASES = [(name, step) for name in RESUMABLE for step in MOMENTS[name]]
KILLS = [(name, f"SIGKILL@{moment}") for name in RESUMABLE for moment in KILLED[name]]
# Killed where another backend is, or a step after another case is; JAX compiles in each process.
THOROUGH = {
    ("numpy", "SIGKILL@step:2"),
    *((name, "SIGKILL@save:3") for name in ("torch", "jax")),
    ("jax", "SIGKILL@step:7"),
}


class TestInterruption:
    @pytest.mark.parametrize(("name", "step"), CASES)
    def test_after_any_step(self, name, step, place, whole, quick, capsys):
        status = run(name, [*SMALL, "--name", "a"], signal_after(step))
        assert status == 130
        assert "twinformer train --resume runs/a" in capsys.readouterr().out
        assert run(name, ["--resume", "runs/a"]) == 0
        assert_same_run(place / "runs/a", whole(name))

    @pytest.mark.parametrize("name", RESUMABLE)
    def test_again_and_again(self, name, place, whole, quick):
        arguments = [*SMALL, "--name", "a"]
        for step in (2, 5, 6, 10):
            assert run(name, arguments, signal_after(step, signal.SIGTERM)) == 143
            arguments = ["--resume", "runs/a"]
        assert run(name, arguments) == 0
        assert_same_run(place / "runs/a", whole(name))

    @pytest.mark.parametrize(
        ("name", "moment"),
        [pytest.param(*k, marks=pytest.mark.thorough if k in THOROUGH else ()) for k in KILLS],
    )
    def test_killed(self, name, moment, place, whole, quick):
        killed = launch(name, moment, [*SMALL, "--name", "a"], place)
        assert killed.returncode == -signal.SIGKILL
        partial = list(place.rglob("*.partial-*"))
        assert bool(partial) == ("@save:" in moment)
        assert run(name, ["--resume", "runs/a"]) == 0
        assert_same_run(place / "runs/a", whole(name))

    @pytest.mark.parametrize(
        ("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)]
    )
    def test_status_of_the_process(self, number, status, place):
        stopped = launch("numpy", f"{number}@step:4", [*SMALL, "--name", "a"], place)
        assert stopped.returncode == status
        assert stopped.stderr.startswith("\nstopping") and stopped.stderr.count("\n") == 2
        says(stopped.stdout, f"stopped by {number}", "step 4 of 12")
        assert (place / "runs/a/curves.png").exists()

    def test_second_ctrl_c_leaves_at_once(self, place):
        # The second signal comes in the save that the first asked for.
        code = (
            "import os, signal, sys, training_cases as t\n"
            "again = lambda folder: os.kill(os.getpid(), signal.SIGINT)\n"
            f"t.run('numpy', {[*SMALL, '--name', 'a']!r}, t.signal_after(3), again)\n"
        )
        stopped = launch_code(code, place)
        assert stopped.returncode == -signal.SIGINT
        assert run("numpy", ["--resume", "runs/a"]) == 0

    def test_during_validation(self, place, whole, quick, monkeypatch):
        evaluate = NumpyBackend.evaluate

        def interrupted(self, batch):
            os.kill(os.getpid(), signal.SIGINT)
            return evaluate(self, batch)

        with monkeypatch.context() as patched:
            patched.setattr(NumpyBackend, "evaluate", interrupted)
            assert run("numpy", [*SMALL, "--name", "a"]) == 130
        assert [m["kind"] for m in metrics(place / "runs/a")] == ["train"]
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert_same_run(place / "runs/a", whole("numpy"))

    def test_before_the_first_checkpoint(self, place, whole, quick, capsys):
        launch("numpy", "SIGKILL@step:1", [*SMALL, "--name", "a"], place)
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert "after step 0" in capsys.readouterr().out
        assert_same_run(place / "runs/a", whole("numpy"))


def words():
    return load_corpus("words.tsv", columns=("word", "sound"))


class TestResuming:
    def test_what_may_not_change(self, place, quick, capsys):
        run("numpy", [*SMALL, "--name", "a"], signal_after(4))
        changed = ["--peak-lr", "0.01", "--hidden-dim", "16", "--columns", "word,word"]
        capsys.readouterr()
        assert run("numpy", ["--resume", "runs/a", *changed, "--log-every", "2"]) == 2
        message = capsys.readouterr().err
        for parts in (
            ("--peak-lr 0.01", 0.05),
            ("--hidden-dim 16", 8),
            ("--columns word,word", "word,sound"),
        ):
            says(message, *parts, "differs")
        assert "--log-every 2" not in message
        says(message.splitlines()[-1], "may change", "--steps")

    def test_other_pairs_to_test_by_are_said(self, place, quick, capsys):
        run("numpy", [*SMALL, "--name", "a"], signal_after(4))
        tested = {example.source for example in words().test}
        lines = (place / "words.tsv").read_text().splitlines(keepends=True)
        first = next(line for line in lines if line.split("\t")[0] in tested)
        (place / "words.tsv").write_text("".join(line for line in lines if line != first))
        capsys.readouterr()
        assert run("numpy", ["--resume", "runs/a"]) == 0
        says(capsys.readouterr().out, "note", "test by", "not those")
        assert run("numpy", ["--resume", "runs/a", "--steps", "13"]) == 0
        assert "not those" not in capsys.readouterr().out

    def test_equal_flags_are_fine(self, place, quick):
        run("numpy", [*SMALL, "--name", "a"], signal_after(4))
        same = ["--columns", "word,sound", "--hidden-dim", "8", "--seed", "1", "--peak-lr", "5e-2"]
        assert run("numpy", ["--resume", "runs/a", *same]) == 0

    def test_more_steps(self, place, quick):
        run("numpy", [*SMALL, "--name", "a"])
        assert run("numpy", ["--resume", "runs/a", "--steps", "15"]) == 0
        logged = [m["step"] for m in metrics(place / "runs/a") if m["kind"] == "train"]
        assert logged[-2:] == [12, 15]
        settings = json.loads((place / "runs/a/settings.json").read_text())["settings"]
        assert settings["steps"] == 15

    def test_fewer_steps(self, place, quick, capsys):
        run("numpy", [*SMALL, "--name", "a"])
        assert run("numpy", ["--resume", "runs/a", "--steps", "11"]) == 2
        assert "has done 12 steps" in capsys.readouterr().err

    @pytest.mark.parametrize("more", [[], ["--evaluate-every", "100", "--average", "2"]])
    @pytest.mark.parametrize("step", [7, 8])
    def test_shortened_to_where_it_stopped(self, step, more, place, quick, capsys):
        """What was an ordinary step has become the last one: it is logged, validated and tested."""
        steps, given = ["--steps", str(step)], [*SMALL, "--schedule", "constant", *more]
        assert run("numpy", [*given, *steps, "--name", "whole"]) == 0
        assert run("numpy", [*given, "--name", "a"], signal_after(step)) == 130
        assert run("numpy", ["--resume", "runs/a", *steps]) == 0
        found = metrics(place / "runs/a")
        evaluated = [m["step"] for m in found if m["kind"] == "evaluation"]
        assert evaluated == ([step] if more else [5, step])
        assert_same_run(place / "runs/a", place / "runs/whole")
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert metrics(place / "runs/a") == found

    def test_a_finished_run_from_before_validations_were_recorded(self, place, quick):
        assert run("numpy", [*SMALL, "--name", "a"]) == 0
        before, path = metrics(place / "runs/a"), "runs/a/checkpoints/step_00000012/progress.json"
        content = json.loads((place / path).read_text())
        assert content.pop("validated") == 12
        (place / path).write_text(json.dumps(content))
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert metrics(place / "runs/a") == before

    def test_other_data(self, place, quick, capsys):
        run("numpy", [*SMALL, "--name", "a"], signal_after(4))
        write_words(place, count=61)
        assert run("numpy", ["--resume", "runs/a"]) == 2
        says(capsys.readouterr().err, "words.tsv", "runs/a/vocabulary", "what runs/a began with")

    def test_another_vocabulary(self, place, quick, capsys):
        run("numpy", [*SMALL, "--name", "a"], signal_after(4))
        path = place / "runs/a/vocabulary/target.json"
        path.write_text(path.read_text().replace('"AA"', '"QQ"'))
        assert run("numpy", ["--resume", "runs/a"]) == 2
        says(capsys.readouterr().err, "runs/a/vocabulary", "vocabularies back as they were")

    def test_from_another_folder(self, place, whole, quick, monkeypatch):
        assert run("numpy", [*SMALL, "--name", "a"], signal_after(4)) == 130
        (place / "elsewhere").mkdir()
        monkeypatch.chdir(place / "elsewhere")
        assert run("numpy", ["--resume", "../runs/a"]) == 0
        assert_same_run(place / "runs/a", whole("numpy"))

    def test_data_that_was_moved(self, place, whole, quick, capsys):
        assert run("numpy", [*SMALL, "--name", "a"], signal_after(4)) == 130
        (place / "words.tsv").rename(place / "moved.tsv")
        assert run("numpy", ["--resume", "runs/a"]) == 2
        said = capsys.readouterr().err
        assert str(place / "words.tsv") in said and "--data" in said
        assert run("numpy", ["--resume", "runs/a", "--data", "moved.tsv"]) == 0
        assert_same_run(place / "runs/a", whole("numpy"))
        settings = json.loads((place / "runs/a/settings.json").read_text())["settings"]
        assert settings["data"] == str(place / "moved.tsv")

    def test_other_batches_are_said_once(self, place, quick, capsys, monkeypatch):
        """As another version of the program may plan them; ``shapes`` are one fewer."""
        assert run("numpy", [*SMALL, "--name", "a"], signal_after(4)) == 130
        before = json.loads((place / "runs/a/settings.json").read_text())["plan_fingerprint"]
        assert run("numpy", ["--resume", "runs/a"], signal_after(5)) == 130
        assert "note:" not in capsys.readouterr().out
        plan = batches.partition
        monkeypatch.setattr(batches, "partition", lambda *given: plan(*given[:3], 1))
        assert run("numpy", ["--resume", "runs/a"], signal_after(7)) == 130
        says(capsys.readouterr().out, "note:", "other batches")
        after = json.loads((place / "runs/a/settings.json").read_text())["plan_fingerprint"]
        assert before != after
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert "note:" not in capsys.readouterr().out

    def test_a_run_from_before_batches_were_recorded(self, place, whole, quick, capsys):
        assert run("numpy", [*SMALL, "--name", "a"], signal_after(4)) == 130
        path = place / "runs/a/settings.json"
        content = json.loads(path.read_text())
        del content["plan_fingerprint"]
        path.write_text(json.dumps(content))
        assert run("numpy", ["--resume", "runs/a"]) == 0
        says(capsys.readouterr().out, "note:", "older version")
        assert_same_run(place / "runs/a", whole("numpy"))

    def test_one_process_at_a_time(self, place, quick, capsys):
        def also(step):
            if step == 5:
                other = launch("numpy", "never", ["--resume", "runs/a"], place)
                assert other.returncode == 2
                assert "is trained by another process" in other.stderr

        assert run("numpy", [*SMALL, "--name", "a"], also) == 0


def test_half_a_file_is_noticed(tmp_path):
    """The cases' own way of damaging files does damage."""
    (tmp_path / "a").write_bytes(bytes(10))
    halve_a_file(tmp_path)
    assert (tmp_path / "a").stat().st_size == 5
