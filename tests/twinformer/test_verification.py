"""Damaged weights reach neither translations nor training, unless the user wants them to."""

import os

import pytest
from damage_cases import flip, flip_in_tensor, forget_tensors, largest_file
from messages import says
from training_cases import SMALL, run, signal_after
from translate_cases import WORDS, make_run

from convert.checkpoints import load_weights_of
from transformer_spec import UserError
from twinformer import Translator
from twinformer.training.evaluation.judge import Judgement

NAME = "encoder.embedding.weight"
MODEL = "model.safetensors"


def flip_a_number(checkpoint) -> None:
    """In the files of either backend."""
    if (checkpoint / MODEL).exists():
        flip_in_tensor(checkpoint / MODEL, NAME)
    else:
        path = largest_file(checkpoint / "orbax/d")
        flip(path, path.stat().st_size // 2)


class TestTranslating:
    @pytest.mark.parametrize("backend", ["torch", "jax"])
    @pytest.mark.parametrize("best", [None, 10])
    def test_best_and_newest(self, tmp_path, call, backend, best):
        path = make_run(tmp_path / "run", backend, steps=(10, 20))
        if best is not None:
            (path / "best").symlink_to(f"checkpoints/step_{best:08d}")
        flip_a_number(path / f"checkpoints/step_000000{best or 20}")
        (tmp_path / "out.txt").write_text("mine")
        flags = ("--backend", backend, "--output", tmp_path / "out.txt")
        status, lines, said = call(path, *flags, *WORDS)
        assert (status, lines) == (2, []) and said.startswith("error: ")
        assert (tmp_path / "out.txt").read_text() == "mine"
        assert call(path, *flags[:2], "--checkpoint", 30 - (best or 20), *WORDS)[0] == 0

    def test_what_is_said_and_what_to_do(self, run, call):
        flip_a_number(run / "checkpoints/step_00000010")
        status, _, said = call(run, *WORDS)
        assert status == 2
        says(said, "model.safetensors is damaged", repr(NAME), "take another checkpoint")
        status, lines, said = call(run, "--no-verify", *WORDS)
        assert (status, len(lines)) == (0, len(WORDS))
        with pytest.raises(UserError, match="is damaged"):
            Translator(run)("abc")
        assert Translator(run, verify=False)("abc")

    @pytest.mark.parametrize("writer", ["torch", "jax"])
    def test_an_older_run(self, tmp_path, call, writer):
        path = make_run(tmp_path / "run", writer)
        step = path / "checkpoints/step_00000010"
        expected = call(path, *WORDS)
        (step / "tensors.json").rename(tmp_path / "kept.json")
        assert call(path, *WORDS) == expected
        (tmp_path / "kept.json").rename(step / "tensors.json")
        forget_tensors(step)
        assert call(path, *WORDS) == expected
        flip_a_number(step)
        status, _, said = call(path, *WORDS)
        assert status == 2
        says(said, "is damaged: its content is not what was saved", "--no-verify")


class TestTraining:
    def stopped(self, place):
        assert run("numpy", [*SMALL, "--name", "a", "--keep", "9"], signal_after(9)) == 130
        return place / "runs/a/checkpoints"

    def test_resuming_names_tensors_and_other_checkpoints(self, place, quick, capsys):
        folder = self.stopped(place)
        flip_a_number(folder / "step_00000009")
        flip_in_tensor(folder / "step_00000008/optimizer.safetensors", f"exp_avg/{NAME}")
        capsys.readouterr()
        assert run("numpy", ["--resume", "runs/a"]) == 2
        said = capsys.readouterr().err
        says(said, "step_00000009/model.safetensors is damaged", repr(NAME), "--no-verify")
        assert "complete: step_00000004, step_00000005; go on" in said and "--from-step 5" in said
        assert run("numpy", ["--resume", "runs/a", "--from-step", "8"]) == 2
        says(capsys.readouterr().err, "step_00000008/optimizer.safetensors", f"'exp_avg/{NAME}'")
        assert not list(folder.glob("set_aside_*"))
        assert run("numpy", ["--resume", "runs/a", "--no-verify"]) == 0

    def test_the_final_test(self, place, quick, capsys, monkeypatch):
        """The best checkpoint, of the first validation, is damaged while the last one is saved."""
        monkeypatch.setattr(Judgement, "is_better_than", lambda *_: False)

        def damage(folder):
            if "step_00000012" in folder.name:
                flip_a_number(place / "runs/a/best")

        assert run("numpy", [*SMALL, "--name", "a"], in_save=damage) == 2
        said = capsys.readouterr().err
        says(said, "step_00000005/model.safetensors is damaged", repr(NAME), "--no-verify")
        assert run("numpy", ["--resume", "runs/a"]) == 2
        assert run("numpy", ["--resume", "runs/a", "--no-verify"]) == 0

    def test_a_mean(self, place, quick):
        assert run("numpy", [*SMALL, "--name", "a", "--average", "2"]) == 0
        best = place / "runs/a/best"
        assert os.readlink(best).startswith("checkpoints/average_")
        assert (best / "tensors.json").is_file() and load_weights_of(place / "runs/a")
        flip_a_number(best)
        with pytest.raises(UserError, match=f"is damaged: '{NAME}'"):
            load_weights_of(place / "runs/a")
        assert run("numpy", ["--resume", "runs/a"]) == 0, "it is made again"
        load_weights_of(place / "runs/a")
