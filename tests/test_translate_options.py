"""The command line of translate.py: which backend it takes, what it refuses."""

import io
import os
import sys

import pytest
import translate_cases
from translate_cases import WRITERS, python

import train
import translate
from transformer_spec import UserError

one_thread = translate_cases.one_thread
runs = translate_cases.runs
run = translate_cases.run
call = translate_cases.call
piped = translate_cases.piped


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
