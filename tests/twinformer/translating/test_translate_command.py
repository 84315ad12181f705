"""``python translate.py`` as a user meets it: texts in, texts out, errors and exit statuses."""

import gzip
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from messages import faults_say, saying, says
from translate_cases import WORDS, WRITERS, make_run

import twinformer
from training_recipe.searching.search import Hypothesis, Search
from training_recipe.text.vocabulary import build_vocabulary
from twinformer.translating.texts import encode_texts


class TestTexts:
    def test_either_backend_reads_either_run(self, runs, call):
        found = {
            (reader, writer): call(runs[writer], "--backend", reader, "--beam", 2, *WORDS)
            for reader in WRITERS
            for writer in WRITERS
        }
        status, lines, said = found["torch", "torch"]
        assert (status, said) == (0, "") and len(lines) == len(WORDS)
        assert lines[2] == "" and len(set(lines)) > 2
        assert all(other == found["torch", "torch"] for other in found.values())

    def test_arguments_file_and_pipe(self, runs, call, piped, tmp_path):
        expected = call(runs["torch"], *WORDS)
        (tmp_path / "words").write_bytes("\r\n".join(WORDS).encode())
        assert call(runs["torch"], "--file", tmp_path / "words") == expected
        assert call("--file", tmp_path / "words", runs["torch"], "--batch-size", 2) == expected
        piped("\n".join(WORDS).encode() + b"\n")
        assert call(runs["torch"]) == expected
        piped(b"\xef\xbb\xbf" + "\n".join(WORDS).encode())
        assert call(runs["torch"], "--file", "-", "--batch-size", 1) == expected

    def test_output_file(self, runs, call, tmp_path):
        expected = call(runs["torch"], *WORDS)[1]
        assert call(runs["torch"], *WORDS, "--output", tmp_path / "out") == (0, [], "")
        assert (tmp_path / "out").read_bytes() == ("\n".join(expected) + "\n").encode()

    def test_nothing_in_nothing_out(self, runs, call, piped):
        piped(b"")
        assert call(runs["torch"]) == (0, [], "")

    def test_best_outputs_with_scores(self, runs, call):
        status, lines, _ = call(runs["torch"], "abc", "", "--nbest", 3, "--scores")
        columns = [line.split("\t") for line in lines]
        assert [column[0] for column in columns] == ["1", "1", "1", "2"]
        scores = [float(column[1]) for column in columns]
        assert scores[0] > scores[1] > scores[2] and scores[3] == 0
        best = call(runs["torch"], "abc", "--scores")[1]
        assert best == ["\t".join(columns[0][1:])] and columns[3][2] == ""

    def test_empty_lines_keep_their_place_and_run_no_model(
        self, runs, call, piped, tmp_path, monkeypatch
    ):
        text = b"abc\n\n  \t \r\nba\n\n"
        (tmp_path / "words").write_bytes(text)
        (tmp_path / "words.gz").write_bytes(gzip.compress(text))
        lines = call(runs["torch"], "abc", "", " \t ", "ba", "")[1]
        assert len(lines) == 5 and [bool(line) for line in lines] == [
            True,
            False,
            False,
            True,
            False,
        ]
        for name in ("words", "words.gz"):
            assert call(runs["torch"], "--file", tmp_path / name)[1] == lines
        piped(text)
        assert call(runs["torch"])[1] == lines
        _, best, _ = call(runs["torch"], "--file", tmp_path / "words", "--nbest", 2, "--scores")
        assert [line.split("\t")[0] for line in best] == ["1", "1", "2", "3", "4", "4", "5"]
        assert best[2] == "2\t0.0000\t" and best[6] == "5\t0.0000\t"
        _, sampled, _ = call(runs["torch"], "--file", tmp_path / "words", "--sample")
        assert len(sampled) == 5 and sampled[1:3] == ["", ""] and sampled[4] == ""
        for name in ("decoding.decode", "device.model_on"):
            monkeypatch.setattr(f"torch_transformer.{name}", None)
        assert call(runs["torch"], "", " ")[:2] == (0, ["", ""])

    def test_settings_reach_the_search(self, runs, call, monkeypatch):
        seen = []
        monkeypatch.setattr(
            "torch_transformer.decoding.decode",
            lambda model, source, search: [seen.append(search)] and [[Hypothesis([4], -1, -1)]],
        )
        beam = ("--beam", 3, "--length-penalty", -0.5, "--nbest", 2, "--max-length", 7)
        sample = ("--sample", "--temperature", 0.5, "--top-k", 4, "--seed", 9)
        assert call(runs["torch"], "a", *beam)[0] == call(runs["torch"], "a", *sample)[0] == 0
        assert call(runs["torch"], "a", "--nbest", 7)[:2] == (0, ["1\tAA"])
        assert seen == [
            Search(beam=3, length_penalty=-0.5, nbest=2, max_length=7),
            Search(sample=True, temperature=0.5, top_k=4, seed=9),
            Search(beam=7, nbest=7),
        ]

    def test_samples_repeat(self, runs, call):
        sampled = [runs["torch"], "--sample", "--temperature", 3, *WORDS]
        one = call(*sampled, "--seed", 1)
        assert one == call(*sampled, "--seed", 1, "--batch-size", 1)
        assert one[1] != call(*sampled, "--seed", 2)[1]

    def test_progress_bar_on_a_terminal(self, runs, call, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        status, lines, said = call(runs["torch"], *WORDS)
        assert (status, len(lines)) == (0, 6) and "6/6" in said
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        assert call(runs["torch"], *WORDS, "--backend", "torch") == (0, lines, "")
        for name, shown in (("torch", "PyTorch"), ("jax", "JAX")):
            status, again, said = call(runs[name], *WORDS)
            assert (status, again) == (0, lines)
            faults_say(said.splitlines(), (shown, f"--backend {name}"))


class TestReading:
    def test_unknown_tokens_are_counted(self, runs, call):
        said = call(runs["torch"], "axb", "zz", "abc")[2]
        faults_say(said.splitlines(), ("3 tokens", "2 lines", "unknown", "<unk>"))
        said = call(runs["torch"], "abc", "a\udcff")[2]
        faults_say(said.splitlines(), ("1 token", "1 line", "unknown", "<unk>"))

    def test_unknown_capitals_are_read_as_small_letters(self, runs, call):
        status, lines, said = call(runs["torch"], "BAb", "abC", "BAX")
        faults_say(
            said.splitlines(),
            ("3 capitals", "3 lines", "unknown", "small letters"),
            ("1 token", "1 line", "unknown", "<unk>"),
        )
        assert lines[:2] == call(runs["torch"], "bAb", "abc")[1]
        assert lines[:1] != call(runs["torch"], "bab")[1], "a capital that is known stays"

    def test_words_are_not_made_small(self):
        vocabulary = build_vocabulary("whitespace", ["a b"])
        assert encode_texts(["A b"], vocabulary, 9, False).ids == [[1, vocabulary.encode("b")[0]]]

    def test_too_long(self, runs, call):
        texts = ["a" * 11, "a" * 12, "ab", "a" * 30]
        status, lines, said = call(runs["torch"], *texts)
        assert (status, lines) == (2, [])
        long = "2 lines", "11 tokens", "(line 2 has 12, 4 has 30)"
        in_python = "truncate=True", "skip_long=True"
        faults_say(said.splitlines(), ("error:", *long, "--truncate", "--skip-long", *in_python))
        status, lines, said = call(runs["torch"], *texts, "--truncate")
        assert (status, lines[1], lines[3]) == (0, lines[0], lines[0])
        faults_say(said.splitlines(), (*long, "cut"))
        status, skipped, said = call(runs["torch"], *texts, "--skip-long")
        assert (status, skipped) == (0, [lines[0], "", lines[2], ""])
        faults_say(said.splitlines(), (*long, "skipped"))
        status, _, said = call(runs["torch"], *texts, "--skip-long", "--truncate")
        assert status == 2 and "--truncate and --skip-long are both given" in said
        said = call(runs["torch"], "a" * 19, *["a" * 12] * 149, "a" * 14)[2]
        listed = "line 1 has 19, 2 has 12,", "100 has 12, 51 more up to 14"
        says(said, "error:", "151 lines", *listed)

    def test_bytes_that_are_no_utf8(self, runs, call, piped, tmp_path):
        (tmp_path / "words").write_bytes(b"ab\nabc\xff\n")
        status, lines, said = call(runs["torch"], "--file", tmp_path / "words")
        assert (status, lines) == (2, [])
        says(said, tmp_path / "words", "UTF-8", "line 2", "offset 6", "0xff")
        piped(b"\xff")
        status, _, said = call(runs["torch"])
        assert status == 2
        says(said, "standard input", "UTF-8", "line 1", "offset 0")

    def test_no_such_file(self, runs, call, tmp_path):
        status, _, said = call(runs["torch"], "--file", tmp_path / "none")
        assert status == 2
        says(said, "error:", "no file", tmp_path / "none")


GENERATE = "--rule", "generate"


class TestLengths:
    def test_outputs_are_as_long_as_was_asked(self, call, tmp_path):
        run = make_run(tmp_path / "run", "torch", max_length=30)
        for length in (20, 30):
            status, lines, said = call(run, "a", *GENERATE, "--min-length", length)
            assert (status, said) == (0, "") and len(lines[0].split()) >= length

    @pytest.mark.parametrize("given", [(13,), (5, "--max-length", 4)])
    def test_what_is_longer_than_an_output_can_be(self, runs, call, given):
        status, lines, said = call(runs["torch"], "a", *GENERATE, "--min-length", *given)
        assert (status, lines) == (2, [])
        says(said, "error:", "min_length", given[0], "max_length", given[-1] if given[1:] else 12)
        translate = twinformer.Translator(runs["torch"])
        with pytest.raises(twinformer.UserError, check=saying("min_length", 13, "max_length", 12)):
            translate("a", min_length=13, rule="generate")


class TestModels:
    def test_chosen_checkpoint(self, call, tmp_path):
        run = make_run(tmp_path / "run", "torch", steps=(10, 20))
        alone = make_run(tmp_path / "alone", "torch")
        old = call(alone, *WORDS)
        assert call(run, *WORDS, "--checkpoint", 10) == old
        newest = call(run, *WORDS)
        assert newest == call(run, *WORDS, "--checkpoint", 20) != old
        (run / "best").symlink_to("checkpoints/step_00000010")
        assert call(run, *WORDS) == call(run / "checkpoints/step_00000010", *WORDS) == old
        status, _, said = call(run, "a", "--checkpoint", 15)
        assert status == 2
        says(said, "no checkpoint of step 15", "10, 20")

    @pytest.mark.usefixtures("both_frameworks")
    def test_converted_folder(self, run, call, tmp_path):
        folder = tmp_path / "converted"
        shutil.copytree(run / "vocabulary", folder / "vocabulary")
        shutil.copy(run / "config.json", folder)
        shutil.copy(run / "checkpoints/step_00000010/model.safetensors", folder)
        assert call(folder, *WORDS) == call(run, *WORDS)
        status, _, said = call(folder, "a", "--checkpoint", 10)
        assert status == 2 and "checkpoint 10 needs a run folder" in said
        shutil.rmtree(folder / "vocabulary")
        status, _, said = call(folder, "a")
        assert status == 2
        says(said, "error:", "without vocabularies")

    def test_half_precision_weights(self, run, call):
        from safetensors.numpy import load_file, save_file

        file = run / "checkpoints/step_00000010/model.safetensors"
        weights = {name: array.astype(np.float16) for name, array in load_file(file).items()}
        save_file(weights, file)
        assert call(run, "--no-verify", *WORDS)[0] == 0

    def test_no_run(self, call, tmp_path):
        status, _, said = call(tmp_path / "none", "a")
        assert (status, said) == (2, f"error: {tmp_path / 'none'} does not exist\n")
        status, _, said = call(tmp_path, "a")
        assert status == 2 and f"{tmp_path} should hold one of model.safetensors" in said
        (tmp_path / "config.json").write_text('{"model_type": "marian", "d_model": 8}')
        status, _, said = call(tmp_path, "a")
        assert status == 2 and f"{tmp_path} should hold one of model.safetensors" in said

    def test_no_complete_checkpoint(self, call, tmp_path):
        run = make_run(tmp_path / "run", "torch", steps=())
        (run / "checkpoints/.step_00000010.partial-abcd").mkdir()
        status, _, said = call(run, "a")
        assert status == 2 and said.startswith(f"error: {run} has no checkpoint yet")

    @pytest.mark.parametrize("name", ["config.json", "settings.json", "vocabulary/source.json"])
    def test_damaged_files(self, run, call, name):
        os.truncate(run / name, 40)
        status, _, said = call(run, "a")
        assert status == 2 and said.startswith("error: ") and Path(name).name in said

    @pytest.mark.usefixtures("both_frameworks")
    def test_truncated_checkpoint(self, run, call):
        file = run / "checkpoints/step_00000010/model.safetensors"
        os.truncate(file, file.stat().st_size // 2)
        status, _, said = call(run, "a")
        assert status == 2 and said.startswith("error: ") and "model.safetensors" in said

    def test_vocabulary_of_another_model(self, run, call):
        build_vocabulary("characters", ["ab"]).save(run / "vocabulary", "source")
        status, _, said = call(run, "a")
        assert status == 2
        says(said, "source vocabulary", "6 tokens", 12)
