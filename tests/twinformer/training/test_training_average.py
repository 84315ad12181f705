"""``--average N`` at the end of a run, and ``python -m convert average`` on one that exists."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from messages import says
from training_cases import SMALL, arrays, assert_same_run, metrics, run, signal_after

import train
from convert.__main__ import main
from convert.checkpoints import (
    Checkpoint,
    load_weights_of,
    write_flax_checkpoint,
    write_torch_checkpoint,
)
from training_recipe.runs.averages import averaged_steps, is_mean_of
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.integrity import seal
from training_recipe.runs.progress import Progress
from training_recipe.runs.record import RunRecord
from transformer_spec import TransformerConfig, UserError, initial_weights
from twinformer.training import averages
from twinformer.training.averages import save_average

AVERAGING = [*SMALL, "--average", "3"]
FOLDER = "average_00000012_of_3"
ROOT = Path(train.__file__).parent
CONFIG = TransformerConfig(
    source_vocab_size=7, target_vocab_size=5, hidden_dim=6, inner_dim=3, num_heads=2,
    num_encoder_layers=1, num_decoder_layers=1, max_length=11,
)  # fmt: skip


def test_which_checkpoints() -> None:
    """Multiples of save_every and the newest; not what was saved between for being the best."""
    assert averaged_steps([4, 5, 8, 10, 12], 3, 4) == [4, 8, 12]
    assert averaged_steps([4, 5, 8, 10, 12], 2, 4) == [8, 12]
    assert averaged_steps([4, 8, 10, 13], 2, 4) == [8, 13]
    assert averaged_steps([4, 8], 5, 4) == [4, 8]
    assert averaged_steps([4, 8], 0, 4) == [] == averaged_steps([], 3, 4)


class TestAtTheEnd:
    def test_the_mean_is_tested_and_used(self, place, quick, capsys) -> None:
        assert run("numpy", [*AVERAGING, "--name", "a", "--keep", "1"]) == 0
        folder = RunFolder(place / "runs/a")
        assert folder.best_or_newest().name == FOLDER
        parts = [arrays(folder.checkpoint(step)) for step in (4, 8, 12)]
        found = arrays(folder.best_or_newest())
        for name, array in found.items():
            mean = np.mean([part[f"w/{name}"] for part in parts], axis=0, dtype=np.float64)
            assert np.array_equal(array, mean.astype(np.float32))
        average, test = metrics(place / "runs/a")[-2:]
        assert (average["kind"], test["kind"]) == ("average", "test")
        assert average["average_of"] == test["average_of"] == [4, 8, 12]
        assert average["loss"] > 0 and set(average["scores"]) == set(test["scores"])
        printed = capsys.readouterr().out
        mean = "mean of 3 checkpoints (steps 4, 8, 12)"
        says(printed, "validation", mean, "loss")
        says(printed, "best single checkpoint", "BLEU")
        says(printed, "test", mean, "3 examples")

    def test_its_loss_is_that_of_its_weights(self, place, quick) -> None:
        """Without scores: the loss written down is not the last checkpoint's."""
        assert run("numpy", [*AVERAGING, "--name", "a", "--valid-examples", "0"]) == 0
        found = metrics(place / "runs/a")
        evaluations = [m["loss"] for m in found if m["kind"] == "evaluation"]
        average = next(m["loss"] for m in found if m["kind"] == "average")
        assert min(evaluations) < average < max(evaluations)

    @pytest.mark.parametrize("step", [5, 9, 11])
    def test_interrupted_and_resumed(self, step, place, quick) -> None:
        assert run("numpy", [*AVERAGING, "--name", "whole"]) == 0
        assert run("numpy", [*AVERAGING, "--name", "a"], signal_after(step)) == 130
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert_same_run(place / "runs/a", place / "runs/whole")
        names = [p / f"checkpoints/{FOLDER}" for p in (place / "runs/a", place / "runs/whole")]
        one, other = map(arrays, names)
        assert all(np.array_equal(one[name], other[name]) for name in one)

    def test_resumed_when_finished_it_says_the_same(self, place, quick) -> None:
        assert run("numpy", [*AVERAGING, "--name", "a"]) == 0
        before = metrics(place / "runs/a")
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert metrics(place / "runs/a") == before
        assert (place / "runs/a/best").resolve().name == FOLDER

    def test_what_is_there_is_not_written_again(self, place, quick, monkeypatch) -> None:
        assert run("numpy", [*AVERAGING, "--name", "a"]) == 0
        with monkeypatch.context() as patched:
            patched.setattr(averages, "write_average", lambda *_: pytest.fail("written again"))
            assert run("numpy", ["--resume", "runs/a"]) == 0
        mean = place / "runs/a/checkpoints" / FOLDER
        before = arrays(mean)
        os.truncate(mean / "model.safetensors", 100)
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert all(np.array_equal(array, before[name]) for name, array in arrays(mean).items())

    @pytest.mark.parametrize("damage", ["{", '{"mean_of": null}', '{"mean_of": [3]}', "[]"])
    def test_a_damaged_record_is_replaced(self, damage, place, quick) -> None:
        assert run("numpy", [*AVERAGING, "--name", "a"]) == 0
        record = place / "runs/a/checkpoints" / FOLDER / "average.json"
        before = record.read_text()
        record.write_text(damage)
        assert run("numpy", ["--resume", "runs/a"]) == 0
        assert record.read_text() == before
        assert (place / "runs/a/best").resolve().name == FOLDER

    def test_an_interruption_keeps_the_mean_in_use(self, place, quick, monkeypatch) -> None:
        """Step 12 is reached again with other weights; writing their mean is cut off half-way."""
        assert run("numpy", [*AVERAGING, "--name", "a"]) == 0
        folder, before = RunFolder(place / "runs/a"), arrays(place / "runs/a/best")
        seal(folder.checkpoint(12), Progress(step=12, backend="jax"))
        parts = [folder.checkpoint(step) for step in (4, 8, 12)]
        assert not is_mean_of(folder.best.resolve(), parts)
        config = TransformerConfig.load(folder.config)

        def cut_off(folders: list[Path], config: object, destination: Path) -> None:
            (destination / "model.safetensors").write_bytes(b"half")
            assert folder.best.resolve().is_dir()
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(averages, "write_average", cut_off)
            save_average(folder, config, [4, 8, 12])
        found = arrays(folder.best_or_newest())
        assert all(np.array_equal(found[name], before[name]) for name in before)
        save_average(folder, config, [4, 8, 12])
        assert is_mean_of(folder.best.resolve(), parts)
        assert not list(place.rglob("*.partial-*"))

    def test_going_on_and_changing_ones_mind(self, place, quick) -> None:
        assert run("numpy", [*AVERAGING, "--name", "a"]) == 0
        assert run("numpy", ["--resume", "runs/a", "--steps", "15", "--average", "2"]) == 0
        assert (place / "runs/a/best").resolve().name == "average_00000015_of_2"
        means = [path.name for path in (place / "runs/a/checkpoints").glob("average*")]
        assert means == ["average_00000015_of_2"]
        assert metrics(place / "runs/a")[-1]["average_of"] == [12, 15]
        assert run("numpy", ["--resume", "runs/a", "--average", "0"]) == 0
        assert (place / "runs/a/best").resolve().name.startswith("step_")

    def test_fewer_than_asked_for_is_said(self, place, quick, capsys) -> None:
        assert run("numpy", [*SMALL, "--keep", "1", "--name", "a"]) == 0
        capsys.readouterr()
        assert run("numpy", ["--resume", "runs/a", "--average", "3"]) == 0
        found = metrics(place / "runs/a")[-1]["average_of"]
        listed = ", ".join(map(str, found))
        said = f"the mean of {len(found)} checkpoints, all there are (steps {listed})"
        assert said in capsys.readouterr().out

    def test_more_than_the_run_makes_is_a_fault(self, place, capsys) -> None:
        assert run("numpy", [*SMALL, "--average", "4", "--name", "a"]) == 2
        says(capsys.readouterr().err, "average 4", "12 steps saved every 4 make 3", "save_every")
        assert not (place / "runs").exists()


def written_run(path: Path, backend: str, steps=(4, 8, 12), config=CONFIG) -> dict[int, dict]:
    """A run folder with checkpoints as a backend writes them; the weights of each step."""
    run = RunFolder(path)
    for part in (run.checkpoints, run.vocabulary):
        part.mkdir(parents=True)
    config.save(run.config)
    from training_recipe.options.settings import TrainingSettings

    settings = TrainingSettings(data="words.tsv", save_every=4, steps=12)
    RunRecord(settings, backend, "hash", steps[-1]).save(run.settings)
    write = {"torch": write_torch_checkpoint, "jax": write_flax_checkpoint}[backend]
    held = {}
    for step in steps:
        held[step] = initial_weights(config, step, np.float32)
        run.checkpoint(step).mkdir()
        zeros = {n: np.zeros_like(a) for n, a in held[step].items()}
        write(run.checkpoint(step), Checkpoint(held[step], zeros, zeros, step))
        seal(run.checkpoint(step), Progress(step=step, backend=backend))
    return held


class TestCommand:
    @pytest.mark.parametrize("backend", ["torch", "jax"])
    def test_mean_in_double_precision(self, backend, tmp_path, capsys) -> None:
        held = written_run(tmp_path / "run", backend)
        before = sorted(path for path in tmp_path.rglob("*"))
        words = ["average", str(tmp_path / "run"), str(tmp_path / "mean"), "--last", "3"]
        assert main(words) == 0
        says(capsys.readouterr().out, "3 checkpoints (steps 4, 8, 12)")
        after = [p for p in tmp_path.rglob("*") if tmp_path / "mean" not in (p, *p.parents)]
        assert sorted(after) == before
        config, weights = load_weights_of(tmp_path / "mean")
        assert config == CONFIG
        for name, array in weights.items():
            exact = np.mean([held[step][name].astype(np.float64) for step in held], axis=0)
            assert array.dtype == np.float32
            assert np.array_equal(array, exact.astype(np.float32)), name
        origin = json.loads((tmp_path / "mean/average.json").read_text())["mean_of"]
        assert [(part["step"], part["backend"]) for part in origin] == [
            (step, backend) for step in (4, 8, 12)
        ]
        assert all(part["files"] for part in origin)
        assert (tmp_path / "mean/settings.json").exists()

    def test_without_any_framework(self, tmp_path, both_frameworks) -> None:
        """NumPy and tensorstore alone average a run of either backend."""
        for backend in ("torch", "jax"):
            written_run(tmp_path / backend, backend)
        code = (
            "import sys\n"
            "for name in ('torch', 'jax', 'flax', 'orbax'): sys.modules[name] = None\n"
            "from convert.__main__ import main\n"
            "both = [main(['average', b, b + '-mean', '--last', '2']) for b in ('torch', 'jax')]\n"
            "sys.exit(max(both))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        one, other = (tmp_path / f"{b}-mean/model.safetensors" for b in ("torch", "jax"))
        assert one.read_bytes() == other.read_bytes()

    def faults(self, capsys, tmp_path, *more) -> str:
        words = ["average", str(tmp_path / "run"), str(tmp_path / "mean"), *map(str, more)]
        assert main(words) == 2
        assert not (tmp_path / "mean").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
        return capsys.readouterr().err

    def test_too_few(self, tmp_path, capsys) -> None:
        written_run(tmp_path / "run", "torch")
        for count in (-3, 0, 1, 4):
            message = self.faults(capsys, tmp_path, "--last", count)
            says(message, f"--last {count}:", "to average: 3", "(steps 4, 8, 12)", "--keep")
            says(message, "at least 2", "no more than these", "to use one alone")

    @pytest.mark.parametrize("words", [(), ("--last", "1"), ("--last", "2")])
    def test_a_single_one(self, words, tmp_path, capsys) -> None:
        written_run(tmp_path / "run", "torch", (4,))
        message = self.faults(capsys, tmp_path, *words)
        says(message, "to average: 1", "at least 2", "to use one alone", tmp_path / "run")
        assert "no more than these" not in message

    def test_all_that_were_kept_where_none_is_asked_for(self, tmp_path, capsys) -> None:
        written_run(tmp_path / "run", "torch")
        assert main(["average", str(tmp_path / "run"), str(tmp_path / "mean")]) == 0
        says(capsys.readouterr().out, "3 checkpoints (steps 4, 8, 12)")

    def test_checkpoints_between_those_of_save_every(self, tmp_path, capsys) -> None:
        written_run(tmp_path / "run", "torch", (6, 9))
        message = self.faults(capsys, tmp_path)
        says(message, "to average: 1", "(steps 9)", "not 6", "--save-every 4", "at least 2")
        assert "--last" not in message

    def test_every_checkpoint_that_does_not_fit_is_named(self, tmp_path, capsys) -> None:
        written_run(tmp_path / "run", "torch", (4, 8, 12, 16))
        run = RunFolder(tmp_path / "run")
        os.truncate(run.checkpoint(4) / "model.safetensors", 100)
        changes = {8: (CONFIG, np.float64), 12: (TransformerConfig(**{
            **CONFIG.to_dict(), "inner_dim": 4}), np.float32)}  # fmt: skip
        for step, (config, dtype) in changes.items():
            shutil.rmtree(run.checkpoint(step))
            run.checkpoint(step).mkdir()
            weights = initial_weights(config, 1, dtype)
            write_torch_checkpoint(run.checkpoint(step), Checkpoint(weights))
            seal(run.checkpoint(step), Progress(step=step))
        message = self.faults(capsys, tmp_path, "--last", "4")
        assert "cannot average: " in message
        assert "step_00000004/model.safetensors is truncated" in message
        assert "step_00000012" in message and "ffn.fc1.weight" in message
        assert "step_00000008" not in message  # the first that can be read says what is right
        message = self.faults(capsys, tmp_path, "--last", "3")
        assert "step_00000016: other dtypes" in message

    def test_nothing_is_overwritten(self, tmp_path, capsys) -> None:
        written_run(tmp_path / "run", "torch")
        (tmp_path / "mean").mkdir()
        assert main(["average", str(tmp_path / "run"), str(tmp_path / "mean"), "--last", "2"]) == 2
        assert "exists already" in capsys.readouterr().err
        assert main(["average", str(tmp_path / "none"), str(tmp_path / "x")]) == 2
        assert "no such folder" in capsys.readouterr().err

    def test_it_needs_to_be_a_run(self, tmp_path) -> None:
        with pytest.raises(UserError, match="not a run folder"):
            RunFolder.open(tmp_path)
