"""``python translate.py`` as a user meets it: texts in, texts out, errors and exit statuses."""

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import train
import translate
from convert.checkpoints import Checkpoint, write_flax_checkpoint, write_torch_checkpoint
from training_recipe.backend import Hypothesis, Search
from training_recipe.decoding_batches import batches, within
from training_recipe.run_folder import RunFolder
from training_recipe.run_record import RunRecord
from training_recipe.settings import TrainingSettings
from training_recipe.translation import encode_texts
from training_recipe.translation import translate as translate_ids
from training_recipe.vocabulary import build_vocabulary
from transformer_spec import TransformerConfig, UserError, weight_shapes

ROOT = Path(translate.__file__).parent
WORDS = ["abcab", "ba", "", "cabbage", "abc", "gag"]
WRITERS = {"torch": write_torch_checkpoint, "jax": write_flax_checkpoint}


def vocabularies():
    letters = build_vocabulary("characters", ["abcdefgA"])
    return letters, build_vocabulary("whitespace", ["AA BB CC DD EE FF GG"])


def make_run(path, writer, steps=(10,), seed=0):
    """A run folder of random weights, as training would have left it."""
    source, target = vocabularies()
    config = TransformerConfig(
        source_vocab_size=len(source), target_vocab_size=len(target), hidden_dim=8, inner_dim=8,
        num_heads=2, num_encoder_layers=1, num_decoder_layers=1, max_length=12,
    )  # fmt: skip
    settings = TrainingSettings(source_vocabulary="characters", target_vocabulary="whitespace")

    def fill(run):
        config.save(run.config)
        run.vocabulary.mkdir()
        source.save(run.vocabulary, "source")
        target.save(run.vocabulary, "target")
        RunRecord(settings, writer, "", steps[-1] if steps else None).save(run.settings)

    run = RunFolder.create(path, fill)
    for number, step in enumerate(steps):
        run.checkpoint(step).mkdir()
        draw = np.random.default_rng(seed + number)
        shapes = weight_shapes(config).items()
        weights = {name: draw.normal(0, 0.6, shape).astype(np.float32) for name, shape in shapes}
        WRITERS[writer](run.checkpoint(step), Checkpoint(weights))
    return path


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """PyTorch's threads and XLA's wait for each other where they share few cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same weights as a run of each backend, and nothing else."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: make_run(folder / name, name) for name in WRITERS}


@pytest.fixture
def run(tmp_path):
    """A run that a test may damage."""
    return make_run(tmp_path / "run", "torch")


@pytest.fixture
def call(capsys):
    """A function: run translate.py; (exit status, output lines, what stderr said)."""

    def call(*arguments):
        status = translate.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out.split("\n")[:-1], err

    return call


@pytest.fixture
def piped(monkeypatch):
    """A function: the bytes that standard input holds."""

    def piped(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return piped


def python(code, folder, **files):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    files = {"capture_output": True} if not files else {"stderr": subprocess.PIPE} | files
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, text=True, timeout=60, **files
    )


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

    def test_settings_reach_the_search(self, runs, call, monkeypatch):
        seen = []
        monkeypatch.setattr(
            "torch_transformer.training.decode",
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
        assert call(runs["torch"], *WORDS) == (0, lines, "")


class TestReading:
    def test_unknown_tokens_are_counted(self, runs, call):
        said = call(runs["torch"], "axb", "zz", "abc")[2]
        assert said == ("3 tokens in 2 lines are unknown to the model and were read as <unk>\n")
        said = call(runs["torch"], "abc", "a\udcff")[2]
        assert said == "1 token in 1 line is unknown to the model and was read as <unk>\n"

    def test_unknown_capitals_are_read_as_small_letters(self, runs, call):
        status, lines, said = call(runs["torch"], "BAb", "abC", "BAX")
        assert said == (
            "3 capitals in 3 lines are unknown to the model and were read as small letters\n"
            "1 token in 1 line is unknown to the model and was read as <unk>\n"
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
        assert said == (
            "error: 2 lines are longer than the 11 tokens the model reads (line 2, 4); "
            "shorten, or cut by --truncate\n"
        )
        status, lines, said = call(runs["torch"], *texts, "--truncate")
        assert (status, lines[1], lines[3]) == (0, lines[0], lines[0])
        assert said == (
            "2 lines are longer than the 11 tokens the model reads (line 2, 4) and cut\n"
        )
        said = call(runs["torch"], *["a" * 12] * 12)[2]
        assert "(line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...)" in said

    def test_bytes_that_are_no_utf8(self, runs, call, piped, tmp_path):
        (tmp_path / "words").write_bytes(b"ab\nabc\xff\n")
        status, lines, said = call(runs["torch"], "--file", tmp_path / "words")
        assert (status, lines) == (2, [])
        assert f"{tmp_path / 'words'} is not UTF-8: line 2, byte offset 6 holds 0xff" in said
        piped(b"\xff")
        status, _, said = call(runs["torch"])
        assert status == 2 and "standard input is not UTF-8: line 1, byte offset 0" in said

    def test_no_such_file(self, runs, call, tmp_path):
        status, _, said = call(runs["torch"], "--file", tmp_path / "none")
        assert status == 2 and said.startswith("error: cannot read the texts: there is no file")


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
        assert status == 2 and "has no checkpoint of step 15; it has: 10, 20" in said

    def test_converted_folder(self, run, call, tmp_path):
        folder = tmp_path / "converted"
        shutil.copytree(run / "vocabulary", folder / "vocabulary")
        shutil.copy(run / "config.json", folder)
        shutil.copy(run / "checkpoints/step_00000010/model.safetensors", folder)
        assert call(folder, *WORDS) == call(run, *WORDS)
        status, _, said = call(folder, "a", "--checkpoint", 10)
        assert status == 2 and "--checkpoint 10 needs a run folder" in said
        shutil.rmtree(folder / "vocabulary")
        status, _, said = call(folder, "a")
        assert status == 2 and "without vocabularies a model reads no text" in said

    def test_half_precision_weights(self, run, call):
        from safetensors.numpy import load_file, save_file

        file = run / "checkpoints/step_00000010/model.safetensors"
        weights = {name: array.astype(np.float16) for name, array in load_file(file).items()}
        save_file(weights, file)
        assert call(run, *WORDS)[0] == 0

    def test_no_run(self, call, tmp_path):
        status, _, said = call(tmp_path / "none", "a")
        assert (status, said) == (2, f"error: {tmp_path / 'none'} does not exist\n")
        status, _, said = call(tmp_path, "a")
        assert status == 2 and f"{tmp_path} has no config.json" in said

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

    def test_truncated_checkpoint(self, run, call):
        file = run / "checkpoints/step_00000010/model.safetensors"
        os.truncate(file, file.stat().st_size // 2)
        status, _, said = call(run, "a")
        assert status == 2 and said.startswith("error: ") and "model.safetensors" in said

    def test_vocabulary_of_another_model(self, run, call):
        build_vocabulary("characters", ["ab"]).save(run / "vocabulary", "source")
        status, _, said = call(run, "a")
        assert status == 2 and "the source vocabulary has 6 tokens, the model 12" in said


class TestBackends:
    @pytest.fixture
    def installed(self, monkeypatch):
        """A function: which backends can be imported; the list of those that were."""

        def install(*names):
            used = []

            def import_backend(name):
                if name not in names:
                    raise UserError(f"the backend {name} needs more")
                used.append(name)
                return name

            monkeypatch.setattr(train, "import_backend", import_backend)
            return used

        return install

    def test_the_writer_is_preferred(self, runs, installed, capsys):
        used = installed("torch", "jax")
        for name in WRITERS:
            translate.choose_backend(None, runs[name])
        translate.choose_backend("jax", runs["torch"])
        assert used == ["torch", "jax", "jax"] and capsys.readouterr().err == ""

    def test_the_other_steps_in(self, runs, installed, capsys):
        assert installed("torch") == []
        assert translate.choose_backend(None, runs["jax"]) == "torch"
        said = capsys.readouterr().err
        assert said == "jax, which wrote the run, is not installed; using torch\n"
        with pytest.raises(UserError, match="the backend jax needs more"):
            translate.choose_backend("jax", runs["torch"])

    def test_neither(self, runs, installed):
        installed()
        with pytest.raises(UserError, match=r"pip install 'twinformer\[torch\]' or pip install"):
            translate.choose_backend(None, runs["jax"])

    def test_missing_framework_names_the_extra(self, runs, tmp_path):
        code = (
            "import sys\n"
            "class Missing:\n"
            "    def find_spec(self, full, path=None, target=None):\n"
            "        if full == 'jax': raise ModuleNotFoundError('none', name='jax')\n"
            "sys.meta_path.insert(0, Missing())\n"
            "import translate\n"
            f"sys.exit(translate.main([{str(runs['jax'])!r}, 'a', '--backend', 'jax']))\n"
        )
        finished = python(code, tmp_path)
        assert finished.returncode == 2
        assert finished.stderr == (
            "error: the backend jax needs jax, which is not installed: "
            "pip install 'twinformer[jax]', or choose the other --backend\n"
        )


class TestCommandLine:
    def test_help_imports_no_framework(self, tmp_path):
        code = (
            "import sys, translate\n"
            "try: translate.main(['--help'])\n"
            "except SystemExit as end: status = end.code\n"
            "heavy = {'torch', 'jax', 'flax', 'sacrebleu', 'sentencepiece', 'tqdm', 'convert'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
            "sys.exit(status)\n"
        )
        finished = python(code, tmp_path)
        assert finished.returncode == 0, finished.stderr
        assert "small letter" in finished.stdout and "examples:" in finished.stdout

    def test_all_faults_at_once(self, runs, call, tmp_path):
        (tmp_path / "words").write_text("a\n")
        status, lines, said = call(
            runs["torch"], "a", "--file", tmp_path / "words", "--output", tmp_path / "words",
            "--batch-size", 0, "--checkpoint", "newest", "--top-k", 3, "--beam", 0,
        )  # fmt: skip
        assert (status, lines) == (2, [])
        for fault in (
            "6 faults",
            "texts and --file are both given",
            "is the input and would be overwritten",
            "--batch-size is 0",
            "--checkpoint is 'newest'",
            "--top-k needs --sample",
            "beam is 0",
        ):
            assert fault in said
        assert (tmp_path / "words").read_text() == "a\n"

    @pytest.mark.parametrize(
        ("arguments", "fault"),
        [
            ([], "the following arguments are required: RUN"),
            (["run", "a", "--beem", "2"], "unrecognized arguments: --beem"),
            (["run", "a", "--beam", "two"], "argument --beam: invalid int value: 'two'"),
            (["run", "a", "--beam", "2", "--sample"], "beam is 2; sampling has none"),
            (["run", "a", "--nbest", "3", "--beam", "2"], "nbest is 3; a beam of 2"),
        ],
    )
    def test_faults(self, call, arguments, fault):
        status, lines, said = call(*arguments)
        assert (status, lines) == (2, []) and said.startswith("error: ") and fault in said

    def test_nothing_to_translate(self, runs, call, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        status, _, said = call(runs["torch"])
        assert status == 2 and "there is nothing to translate" in said

    def test_output_that_cannot_be_written(self, runs, call, tmp_path):
        status, _, said = call(runs["torch"], "a", "--output", tmp_path / "none/out")
        assert status == 2 and f"cannot write --output {tmp_path / 'none/out'}: No such" in said
        status, _, said = call(runs["torch"], "a", "--output", "/dev/full")
        assert status == 2 and "cannot write --output /dev/full: No space left" in said

    def test_interrupt(self, runs, call, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(translate, "load_backend", interrupted)
        assert call(runs["torch"], "a")[0] == 130

    def test_standard_output_that_is_full_or_gone(self, runs, tmp_path):
        code = f"import sys, translate; sys.exit(translate.main([{str(runs['torch'])!r}, 'a']))"
        with open("/dev/full", "w") as full:
            finished = python(code, tmp_path, stdout=full)
        said = "error: cannot write to standard output: No space left on device\n"
        assert (finished.returncode, finished.stderr) == (2, said)
        reader, writer = os.pipe()
        os.close(reader)
        finished = python(code, tmp_path, stdout=writer)
        os.close(writer)
        assert (finished.returncode, finished.stderr) == (1, "")


def rows_32(length: int) -> int:
    return 32


class TestBatches:
    def test_few_shapes(self):
        draw = np.random.default_rng(0)
        lengths = [int(n) for n in draw.integers(1, 90, 500)]
        made = list(batches(lengths, rows_32, 100))
        assert {shape for _, shape in made} == {(32, 8), (32, 16), (32, 32), (32, 64), (32, 100)}
        together = sorted(number for members, _ in made for number in members)
        assert together == [number for number, length in enumerate(lengths) if length > 1]
        for members, (rows, width) in made:
            assert len(members) <= rows
            assert max(lengths[number] for number in members) <= width

    def test_rows_of_few_sources(self):
        assert [shape for _, shape in batches([5, 1, 3, 4], rows_32, 100)] == [(4, 8)]
        assert [shape for _, shape in batches([5], rows_32, 6)] == [(1, 6)]
        assert list(batches([1, 1], rows_32, 100)) == []

    def test_rows_within_a_budget(self):
        rows_of = within(1024, 5)
        assert [rows_of(length) for length in (8, 16, 100, 10**6)] == [128, 64, 16, 1]
        assert [shape for _, shape in batches([9] * 100 + [3] * 200, rows_of, 64)] == [
            (64, 16), (64, 16), (128, 8), (128, 8)
        ]  # fmt: skip

    def test_order_is_restored(self):
        draw = np.random.default_rng(0)
        config = TransformerConfig(9, 9, 8, 8, 2, 1, 1, 100)
        ids = [[4] * int(n) for n in draw.integers(0, 9, 300)]

        def decode(source, search):
            return [[Hypothesis([int((row == 4).sum())], 0.0, 0.0)] for row in source]

        advanced = []
        blocks = list(translate_ids(ids, decode, Search(), 4, config, advanced.append))
        found = [outputs[0].ids for block in blocks for outputs in block]
        assert found == [[len(part)] if part else [] for part in ids]
        assert len(blocks) == 3 and sum(advanced) == 300
