"""A command of a page of docs/, run in this process wherever it is one of ours.

``train.py`` is run as the page says, for a few steps of a small model; the commands of benchmarks,
which take minutes to hours, are only asked whether they know their flags.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from page_blocks import ROOT

SHORT = [
    *("--steps", "4", "--evaluate-every", "2", "--save-every", "2", "--log-every", "1"),
    *("--valid-examples", "2", "--test-examples", "2", "--batch-shapes", "1", "--device", "cpu"),
]
SMALL = [
    *("--hidden-dim", "8", "--inner-dim", "12", "--num-heads", "2"),
    *("--num-encoder-layers", "1", "--num-decoder-layers", "1"),
]
# So many pieces as a few lines of text have.
PIECES = ["--source-vocab-size", "40", "--target-vocab-size", "40"]
# No model of their own, or none that could be another size.
GIVEN = ("--resume", "--resume-or-start", "--init", "--help")
OURS: dict[str, tuple[str, tuple[str, ...]]] = {
    "train.py": ("twinformer.commands.train", ()),
    "translate.py": ("twinformer.commands.translate", ()),
    "diversify.py": ("twinformer.commands.diversify", ()),
    "-m convert": ("convert.__main__", ()),
    "-m parity": ("parity.__main__", ()),
    "-m twinformer": ("twinformer.__main__", ()),
}
SHELL = ("cp", "mv", "ls", "cat", "head", "mkdir", "echo", "sha256sum", "grep", "tail")


def shortened(program: str, words: list[str]) -> list[str]:
    """The words of ``train``, with sizes for a test; all other words as they are."""
    if words[:1] == ["train"] and program == "-m twinformer":
        return ["train", *shortened("train.py", words[1:])]
    if program != "train.py" or "--help" in words:
        return words
    sized = [] if any(flag in words for flag in GIVEN) else [*SMALL, *PIECES]
    resumed = "--resume" in words
    return [*words, *(["--device", "cpu"] if resumed else SHORT), *sized]


def status_of(main: Callable[[list[str]], int | None], words: list[str]) -> int:
    """The exit status of a command's ``main``."""
    try:
        return main(words) or 0
    except SystemExit as end:
        return int(end.code or 0)


def run(line: str, folder: Path) -> int:
    """Run one line; its exit status. A kind of command that nothing here knows is a failure."""
    words = shlex.split(line)
    settings = {}
    while re.match(r"[A-Z][A-Z0-9_]*=", words[0]):
        name, _, value = words.pop(0).partition("=")
        settings[name] = value
    if words[0] == "twinformer":
        words = ["python", "-m", *words]
    with pytest.MonkeyPatch.context() as patch, numbers_as_before():
        for name, value in settings.items():
            patch.setenv(name, value)
        return _run(words, folder)


@contextlib.contextmanager
def numbers_as_before() -> Iterator[None]:
    """What a process of its own ends with it: JAX's 64-bit numbers, which comparing asks for."""
    import jax

    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


def _run(words: list[str], folder: Path) -> int:
    if words[0] in SHELL:
        return subprocess.run(["bash", "-c", shlex.join(words)], cwd=folder).returncode
    if words[:2] == ["pip", "install"]:
        return check_extras(words)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), words
        return 0
    assert words[0] == "python", f"nothing runs {shlex.join(words)}"
    program = " ".join(words[1:3]) if words[1] == "-m" else words[1]
    rest = words[3:] if words[1] == "-m" else words[2:]
    # CTranslate2 would change how PyTorch rounds in this process.
    if program in OURS and "ctranslate2" not in rest:
        module, before = OURS[program]
        main = importlib.import_module(module).main
        return status_of(main, [*before, *shortened(program, rest)])
    if "benchmarks" in program:
        return check_flags(program, rest)
    if program == "-m pytest":
        return check_tests(rest)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    beside = [str(ROOT / word) if word.startswith("examples/") else word for word in words[1:]]
    return subprocess.run([sys.executable, *beside], cwd=folder, env=environment).returncode


def check_extras(words: list[str]) -> int:
    """What is installed exists as an extra; ``make release-check`` installs it."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(named.split(",")) <= known.keys(), named
    return 0


def check_flags(program: str, words: list[str]) -> int:
    """The program's help names every flag."""
    unknown = {word for word in words if word.startswith("--")} - flags_of(program)
    assert not unknown, unknown
    return 0


@functools.cache
def flags_of(program: str) -> set[str]:
    """The flags in a program's help."""
    start = program.split() if program.startswith("-m") else [str(ROOT / program)]
    words = [sys.executable, *start, "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"--[a-z][a-z0-9-]+", done.stdout))


def check_tests(words: list[str]) -> int:
    """The files and folders of tests exist."""
    named = [word.partition("::")[0] for word in words if word.startswith("tests/")]
    assert all((ROOT / name).exists() for name in named), named
    return 0
