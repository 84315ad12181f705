"""The README stays true: its tree, its commands' flags, its numbers that code also holds."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from convert.__main__ import COMMANDS as CONVERTING
from convert.checkpoints.folders import MODELS
from convert.conversion.request import sources
from convert.conversion.target import targets
from parity.__main__ import COMMANDS
from training_recipe.options.request import recipe_file

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHECKPOINTS = (ROOT / "docs/checkpoints.md").read_text(encoding="utf-8")
WRITTEN_BY_LIBRARIES = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
HELP = {
    "train.py": ["train.py"],
    "translate.py": ["translate.py"],
    "diversify.py": ["diversify.py"],
    "-m convert": ["-m convert", *(f"-m convert {word}" for word in CONVERTING)],
    "-m parity": ["-m parity", *(f"-m parity {word}" for word in COMMANDS)],
}


def commands(start: str) -> list[str]:
    return [
        line.split("#")[0] for line in README.splitlines() if line.startswith(f"python {start}")
    ]


def test_the_tree_names_every_package_and_nothing_else() -> None:
    tree = README.split("## The house")[1].split("```")[1]
    named = {line.split()[0].rstrip("/") for line in tree.strip().splitlines()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = listed.stdout.splitlines() or [p.name for p in ROOT.iterdir()]
    top = {name.partition("/")[0] for name in files if "/" in name or name.endswith(".py")}
    assert named == {name for name in top if not name.startswith(".")}


@functools.cache
def flags_of(start: str) -> set[str]:
    """The flags in the help of all its words."""
    known: set[str] = set()
    for words in HELP[start]:
        done = subprocess.run(
            [sys.executable, *words.split(), "--help"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, words
        known |= set(re.findall(r"--[a-z-]+", done.stdout))
    return known


@pytest.mark.parametrize("start", HELP)
def test_every_flag_in_a_command_exists(start: str) -> None:
    known = flags_of(start)
    flags = {flag for line in commands(start) for flag in re.findall(r"--[a-z-]+", line)}
    assert flags <= known
    assert flags


def test_the_page_of_checkpoints_names_flags_files_and_families_that_there_are() -> None:
    known = flags_of("-m convert")
    flags = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", CHECKPOINTS)) - {"--local-dir"}
    assert "--merge-adapter" in flags and flags <= known, flags - known
    assert all(f"`{name}`" in CHECKPOINTS for name in MODELS if name in WRITTEN_BY_LIBRARIES)
    assert set(re.findall(r"--(?:to|from) ([a-z][\w-]+)", CHECKPOINTS)) <= {*targets(), *sources()}


def test_recipes_named_in_commands_exist() -> None:
    named = re.findall(r"--recipe (\S+?)[`, ]", README)
    assert named
    for recipe in named:
        assert recipe_file(recipe).is_file()


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
