"""Places, names and numbers that a run cannot have: one clear error each, and nothing left."""

import errno
import json
import os

import pytest
from messages import says
from training_cases import SMALL, run

from training_recipe.files import writing
from training_recipe.searching.batches import within
from training_recipe.searching.search import Search, check_search_memory, search_bytes
from transformer_spec import TransformerConfig, UserError, memory
from transformer_spec.config import DECLARATIONS as MODEL
from transformer_spec.declarations import MOST_WHOLE


def fails(capsys, *flags: str) -> str:
    assert run("numpy", [*SMALL, *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said
    return said


class TestPlaces:
    @pytest.mark.parametrize("length", [256, 5000])
    def test_too_long_a_name_is_said_before_the_data_are_read(self, place, capsys, length):
        says(fails(capsys, "--name", "x" * length, "--data", "none.tsv"), "shorter name")
        assert not (place / "runs").exists()

    def test_the_longest_name_is_possible(self, place, quick):
        assert run("numpy", [*SMALL, "--steps", "1", "--name", "x" * 255]) == 0

    @pytest.mark.parametrize("flag", ["--name", "--out", "--resume", "--recipe", "--data"])
    def test_an_empty_name(self, place, capsys, flag):
        says(fails(capsys, f"{flag}="), flag, "empty")
        assert sorted(os.listdir(place)) == ["words.tsv"]

    @pytest.mark.parametrize("text", ["a\0b", "a\ud800"])
    @pytest.mark.parametrize("flag", ["--name", "--out", "--data", "--resume", "--columns"])
    def test_characters_that_no_name_has(self, place, capsys, flag, text):
        says(fails(capsys, flag, text), flag)

    def test_bytes_that_are_no_text_are_a_name(self, place):
        assert run("numpy", [*SMALL, "--steps", "1", "--name", "a\udcff"]) == 0
        assert (place / "runs" / "a\udcff" / "curves.png").exists()

    def test_a_loop_of_links(self, place, capsys):
        (place / "loop").symlink_to("loop")
        says(fails(capsys, "--out", "loop/x"), "loop/x", "circle")
        assert run("numpy", ["--resume", "loop"]) == 2
        says(capsys.readouterr().err, "loop", "run folder")

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
    def test_a_disk_that_can_only_be_read(self, place, capsys, monkeypatch, number):
        monkeypatch.setattr(writing.os, "access", lambda path, mode: False)
        monkeypatch.setattr(writing, "_is_read_only", lambda path: number == errno.EROFS)
        said = fails(capsys, "--name", "x", "--data", "none.tsv")
        says(said, "runs/x", os.strerror(number), str(place))

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.ENOSPC])
    def test_a_disk_that_refuses_in_the_middle(self, place, capsys, monkeypatch, number):
        def refuse(*_):
            raise OSError(number, os.strerror(number), "runs/x/metrics.jsonl")

        monkeypatch.setattr("training_recipe.runs.metrics.truncate", refuse)
        says(fails(capsys, "--name", "x"), "runs/x/metrics.jsonl", os.strerror(number))

    @pytest.mark.parametrize("moved", [True, False])
    def test_a_run_that_is_moved_or_removed_while_it_trains(self, place, capsys, quick, moved):
        def after_step(step):
            if step == 6:
                target = place / "elsewhere"
                os.rename(place / "runs/x", target)
                if not moved:
                    __import__("shutil").rmtree(target)

        assert run("numpy", [*SMALL, "--name", "x"], after_step) == 2
        said = capsys.readouterr().err
        says(said, "runs/x/checkpoints", "moved or removed")
        assert said.count("\n") == 1
        if moved:
            assert run("numpy", ["--resume", "elsewhere"]) == 0


class TestNumbers:
    @pytest.mark.parametrize(
        "flag",
        ["max-length", "steps", "batch-tokens", "hidden-dim", "seed", "keep", "accumulate", "beam"]
        + ["batch-shapes", "warmup-steps", "patience", "num-encoder-layers", "position-offset"],
    )
    @pytest.mark.parametrize("value", [10**20, 10**400, -(10**30)])
    def test_far_too_large_ones_are_named(self, place, capsys, flag, value):
        says(fails(capsys, f"--{flag}={value}"), f"--{flag}")

    def test_floats(self, place, capsys):
        says(fails(capsys, "--peak-lr", "1e400"), "--peak-lr", "finite")
        (place / "a.toml").write_text(f"[optimisation]\npeak_lr = {10**400}\nsteps = {10**30}\n")
        said = fails(capsys, "--recipe", "a.toml")
        says(said, "peak_lr", "number")

    def test_a_recipe_without_end(self, place, capsys):
        (place / "deep.toml").write_text("[a]\nx = " + "[" * 5000 + "]" * 5000)
        says(fails(capsys, "--recipe", "deep.toml"), "--recipe deep.toml", "too deep")

    def test_a_model_or_its_positions_beyond_all_memory(self, place, capsys):
        huge = ["--hidden-dim", "2000000000"]
        says(fails(capsys, *huge), "model", "TiB of memory", "smaller")
        says(fails(capsys, "--max-length", "2147483647"), "positions", "GiB of memory")
        says(fails(capsys, "--beam", "1000000"), "beam of 1,000,000", "TiB of memory")
        assert not (place / "runs").exists()

    def test_a_config_of_somebody(self):
        small = {n: 4 for n, d in MODEL.items() if d.default is not None and d.type is int}
        with pytest.raises(UserError) as caught:
            TransformerConfig(**small | {"max_length": 10**20, "pad_id": 2**31})
        says(caught.value, "max_length", f"{MOST_WHOLE:,}")


class TestBeams:
    CONFIG = TransformerConfig(
        source_vocab_size=11, target_vocab_size=13, hidden_dim=8, inner_dim=5, num_heads=2,
        num_encoder_layers=1, num_decoder_layers=3, max_length=20,
    )  # fmt: skip

    def test_the_estimate(self):
        # Rows 2, 9 tokens, beam 3, 20 columns: keys and values, cells, logits and logarithms,
        # candidates.
        wanted = 2 * (2 * 9 + 6 * 20) * 8 * 3 * 4
        wanted += 6 * 20 * 3 * (2 + 2 * 4) + 2 * 6 * 13 * 4 + 2 * 6 * 6 * 4
        assert search_bytes(2, 9, self.CONFIG, Search(beam=3)) == wanted
        apart = search_bytes(2, 9, self.CONFIG, Search(sample=True, nbest=3))
        assert apart == wanted - 6 * 20 * 2 * (2 + 2 * 4)

    def test_it_is_compared_with_what_there_is(self, monkeypatch):
        needed = search_bytes(2, 9, self.CONFIG, Search(beam=3))
        for free, fits in ((needed, True), (needed - 1, False)):
            monkeypatch.setattr(memory, "available", lambda free=free: free - 100)
            monkeypatch.setattr(memory, "resident", lambda: 100)
            if fits:
                check_search_memory(2, 9, self.CONFIG, Search(beam=3))
                continue
            with pytest.raises(UserError) as caught:
                check_search_memory(2, 9, self.CONFIG, Search(beam=3))
            says(caught.value, "beam of 3", "batches of 2", "20 tokens")

    @pytest.mark.parametrize("backend", ["torch", "jax"])
    @pytest.mark.parametrize(
        "flags", [["--beam", "1000000"], ["--sample", "--nbest", "2000000000"]]
    )
    def test_translating(self, runs, call, backend, flags):
        status, out, err = call(runs[backend], "abc", "--backend", backend, *flags)
        assert (status, out) == (2, [])
        says(err, "error", "of memory", "smaller beam")

    @pytest.mark.parametrize("flag", ["--beam", "--nbest"])
    def test_numbers_beyond_counting(self, runs, call, flag):
        status, _, err = call(runs["torch"], "abc", flag, str(10**20))
        assert status == 2
        says(err, flag[2:], f"{MOST_WHOLE:,}")

    def test_a_batch_of_training_has_room_for_one_row(self):
        assert within(100, 10**6)(20) == 1


def test_a_damaged_progress_is_named_where_a_run_goes_on(place, capsys, quick):
    assert run("numpy", [*SMALL, "--steps", "4", "--name", "x"]) == 0
    path = place / "runs/x/checkpoints/step_00000004/progress.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"best_score": "x"}))
    capsys.readouterr()
    assert run("numpy", ["--resume", "runs/x"]) == 2
    says(capsys.readouterr().err, "best_score", "text")
