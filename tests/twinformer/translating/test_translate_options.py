"""The command line of translate.py: which backend it takes, what it refuses."""

import io
import os
import sys

import numpy as np
import pytest
from messages import faults_say, says
from translate_cases import WRITERS, python

from convert.__main__ import main as convert
from transformer_spec import UserError
from twinformer import frameworks


class TestBackends:
    @pytest.fixture
    def installed(self, monkeypatch):
        """A function: which backends can be imported; the list of those that were."""

        def install(*names):
            used = []

            def twin(name, part=""):
                if name not in names:
                    raise UserError(f"the backend {name} needs more")
                used.append(name)

            monkeypatch.setattr(frameworks, "twin", twin)
            return used

        return install

    def test_the_writer_is_preferred(self, runs, installed):
        used = installed("torch", "jax")
        for name in WRITERS:
            assert frameworks.choose(None, runs[name]) == (name, [])
        assert frameworks.choose("jax", runs["torch"]) == ("jax", [])
        assert used == ["torch", "jax", "jax"]

    @pytest.mark.parametrize("trained", WRITERS)
    @pytest.mark.parametrize(("to", "name"), [("torch", "torch"), ("flax", "jax")])
    def test_that_of_a_converted_folder(self, runs, installed, tmp_path, trained, to, name):
        """What it was converted to, whatever trained it; without a record whose names it has."""
        installed("torch", "jax")
        for more in ([], ["--container", "safetensors"]):
            folder = tmp_path / "-".join(["ours", *more])
            assert convert([str(runs[trained]), str(folder), "--to", to, *more]) == 0
            assert frameworks.choose(None, folder) == (name, [])
            (folder / "settings.json").unlink()
            (folder / "conversion.json").unlink()
            assert frameworks.choose(None, folder) == (name, [])

    def test_the_other_steps_in(self, runs, installed):
        assert installed("torch") == []
        chosen, notes = frameworks.choose(None, runs["jax"])
        assert chosen == "torch"
        faults_say(notes, ("jax", "not installed", "using torch"))
        with pytest.raises(UserError, match="the backend jax needs more"):
            frameworks.choose("jax", runs["torch"])

    def test_neither(self, runs, installed):
        installed()
        with pytest.raises(UserError, match=r"pip install 'twinformer\[torch\]' or pip install"):
            frameworks.choose(None, runs["jax"])

    def test_missing_framework_names_the_extra(self, runs, tmp_path):
        code = (
            "import sys\n"
            "class Missing:\n"
            "    def find_spec(self, full, path=None, target=None):\n"
            "        if full in ('jax', 'optax'): raise ModuleNotFoundError('none', name=full)\n"
            "sys.meta_path.insert(0, Missing())\n"
            "import translate\n"
            f"sys.exit(translate.main([{str(runs['jax'])!r}, 'a', '--backend', 'jax']))\n"
        )
        finished = python(code, tmp_path)
        assert finished.returncode == 2
        absent = "needs jax, optax, which are not installed"
        says(finished.stderr, "error:", absent, "pip install 'twinformer[jax]'")
        assert finished.stderr.count("\n") == 1


class TestAttention:
    def test_both_backends_draw_what_the_model_looked_at(self, runs, call, tmp_path, monkeypatch):
        seen = []
        monkeypatch.setattr(
            "twinformer.translating.attention_plot.draw_map",
            lambda *given: seen.append(given) or set(),
        )
        for name in WRITERS:
            for kind in ("cross", "encoder", "decoder"):
                arguments = "--attention", tmp_path / "x.png", "--attention-kind", kind
                status, lines, said = call(runs[name], "abc", "--backend", name, *arguments)
                assert (status, len(lines), said) == (0, 1, "")
        for torchs, jaxs in zip(seen[:3], seen[3:], strict=True):
            assert torchs[0][1:] == jaxs[0][1:] and torchs[1:] == jaxs[1:]
            np.testing.assert_allclose(torchs[0].weights, jaxs[0].weights, atol=2e-6)
        found, kind, title, path = seen[0]
        assert (kind, path, title) == ("cross", tmp_path / "x.png", f"abc \u2192 {lines[0]}")
        assert found.columns == ["a", "b", "c", "</s>"]
        assert found.rows == [*lines[0].split(), "</s>"][:12]
        np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)

    def test_a_file_for_each_text(self, runs, call, tmp_path):
        plain = call(runs["torch"], "abc", "", "ba", "--nbest", 2)
        drawn = call(
            runs["torch"], "abc", "", "ba", "--nbest", 2, "--attention", tmp_path / "x.png"
        )
        assert drawn[:2] == plain[:2]
        faults_say(drawn[2].splitlines(), ("no picture", "line 2", "no token"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x-1.png", "x-3.png"]

    def test_an_output_cut_off_has_no_end(self, runs, call, tmp_path, monkeypatch):
        seen = []
        monkeypatch.setattr(
            "twinformer.translating.attention_plot.draw_map",
            lambda *given: seen.append(given) or set(),
        )
        arguments = "--attention", tmp_path / "x.png", "--max-length", 1, "--beam", 1
        lines = call(runs["torch"], "abc", *arguments)[1]
        assert seen[0][0].rows == lines[0].split() and len(lines[0].split()) == 1

    def test_a_picture_that_cannot_be_written(self, runs, call, tmp_path):
        (tmp_path / "x.png").mkdir()
        status, _, said = call(runs["torch"], "abc", "--attention", tmp_path / "x.png")
        assert status == 2 and said.startswith(f"error: cannot write {tmp_path / 'x.png'}: ")


class TestStart:
    def test_what_takes_seconds_to_import_is_not_imported(self, runs, tmp_path):
        code = (
            "import sys, translate\n"
            f"assert translate.main([{str(runs['torch'])!r}, 'abc']) == 0\n"
            "slow = {'torch._dynamo', 'sympy', 'matplotlib', 'jax', 'orbax', 'sentencepiece'}\n"
            "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        )
        finished = python(code, tmp_path)
        assert finished.returncode == 0, finished.stderr


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
        for parts in (
            ("6 faults",),
            ("texts", "--file", "both given"),
            (tmp_path / "words", "overwritten"),
            ("--batch-size", 0),
            ("--checkpoint", "'newest'"),
            ("--top-k", "--sample"),
            ("beam", 0),
        ):
            says(said, *parts)
        assert (tmp_path / "words").read_text() == "a\n"

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            ([], ("required: RUN",)),
            (
                ["run", "--beem", "2", "a"],
                ("unrecognized arguments: --beem;", "did you mean --beam?"),
            ),
            (["run", "a", "--q"], ("unrecognized", "--q", "--help")),
            (["run", "a", "--beam", "two"], ("--beam", "invalid", "'two'", "--help")),
            (["run", "a", "--beam", "2", "--sample"], ("beam", 2, "sampling")),
            (["run", "a", "--nbest", "3", "--beam", "2"], ("nbest", 3, "beam of 2")),
            (["run", "a", "--attention", "a.jpg"], ("--attention", "a.jpg", ".png")),
            (["run", "a", "--attention", "no/a.png"], ("no/a.png", "no folder no")),
            (["run", "a", "--output", "no/a.txt"], ("--output", "no/a.txt", "no folder no")),
            (["run", "a", "--output", "/"], ("--output", "is a folder")),
            (["run", "a", "--output", "a" * 255], (".unfinished", "name too long")),
            (["run", "a", "--attention-kind", "cross"], ("--attention-kind", "--attention FILE")),
            (["run", "a", "--attention-kind", "self"], ("invalid choice", "'self'")),
            (
                ["run", "a", "--attention", "a.png", "--output", "a.png"],
                ("--attention", "--output", "both a.png"),
            ),
        ],
    )
    def test_faults(self, call, arguments, parts):
        status, lines, said = call(*arguments)
        assert (status, lines) == (2, []) and said.startswith("error: ")
        says(said, *parts)

    def test_nothing_to_translate(self, runs, call, monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        status, _, said = call(runs["torch"])
        assert status == 2 and "there is nothing to translate" in said

    def test_output_that_cannot_be_written(self, runs, call, tmp_path):
        status, _, said = call(runs["torch"], "a", "--output", "/dev/full")
        assert status == 2
        says(said, "--output /dev/full", "No space left")

    def test_interrupt(self, runs, call, monkeypatch):
        def interrupted(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("torch_transformer.decoding.decode", interrupted)
        assert call(runs["torch"], "a")[0] == 130

    def test_standard_output_that_is_full_or_gone(self, runs, tmp_path):
        code = f"import sys, translate; sys.exit(translate.main([{str(runs['torch'])!r}, 'a']))"
        with open("/dev/full", "w") as full:
            finished = python(code, tmp_path, stdout=full)
        assert finished.returncode == 2
        faults_say(finished.stderr.splitlines(), ("error:", "standard output", "No space left"))
        reader, writer = os.pipe()
        os.close(reader)
        finished = python(code, tmp_path, stdout=writer)
        os.close(writer)
        assert (finished.returncode, finished.stderr) == (1, "")
