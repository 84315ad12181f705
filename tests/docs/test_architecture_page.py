"""The page about the house stays true: every file and function that it names, and its tree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from page_blocks import DOCS, ROOT, blocks

PAGE = DOCS / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
TWINS = ("torch_transformer", "flax_transformer")
# An item of a walk, or a paragraph.
PARTS = [part for part in re.split(r"\n\n|\n(?=\d\. )", TEXT) if "```" not in part]
FILE = re.compile(r"`([\w./]+\.py|[\w/]+/)`")
CALLED = re.compile(r"`(?:\w+\.)*(\w+)\(\)`")
CLASS = re.compile(r"`([A-Z][a-z]\w+)(?:\.\w+\(\))?`")


def defined(name: str, files: list[Path]) -> bool:
    """Whether a function or class of that name stands in one of the files."""
    made = re.compile(rf"^\s*(?:def|class) {name}\b", re.M)
    return any(made.search(file.read_text(encoding="utf-8")) for file in files)


def test_every_file_exists() -> None:
    named = FILE.findall(TEXT)
    assert len(named) > 40
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("pattern, least", [(CALLED, 30), (CLASS, 6)])
def test_every_function_and_class_stands_in_a_file_of_its_item(pattern: re.Pattern, least: int):
    everywhere = [path for twin in TWINS for path in (ROOT / twin).glob("*.py")]
    lost, count = [], 0
    for part in PARTS:
        files = [ROOT / name for name in FILE.findall(part) if name.endswith(".py")]
        names = pattern.findall(part)
        count += len(names)
        lost += [name for name in names if not defined(name, files or everywhere)]
    assert lost == [] and count >= least


def test_what_does_not_exist_is_found() -> None:
    assert defined("make_plan", [ROOT / "convert/conversion/plan.py"])
    assert not defined("make_plans", [ROOT / "convert/conversion/plan.py"])
    assert CALLED.findall("`Training._step()` and `start()`") == ["_step", "start"]


def test_the_tree_names_every_package_and_nothing_else() -> None:
    (tree,) = [block.text for block in blocks(PAGE) if block.kind == "text"]
    named = {line.split()[0].rstrip("/") for line in tree.strip().splitlines()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = listed.stdout.splitlines() or [p.name for p in ROOT.iterdir()]
    top = {name.partition("/")[0] for name in files if "/" in name or name.endswith(".py")}
    assert named == {name for name in top if not name.startswith(".")}


def test_the_twins_are_an_eighth_of_the_lines() -> None:
    def lines(*folders: str) -> int:
        files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
        return sum(file.read_text(encoding="utf-8").count("\n") for file in files)

    twins = lines(*TWINS)
    rest = lines("transformer_spec", "training_recipe", "convert", "parity", "twinformer")
    assert 1 / 9 < twins / (twins + rest) < 1 / 7
