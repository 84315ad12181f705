"""docs/decisions.md: every decision has its number once, and every number that is named exists."""

from __future__ import annotations

import re

import pytest
from page_blocks import DOCS, ROOT

PAGE = (DOCS / "decisions.md").read_text(encoding="utf-8")
ENTRY = re.compile(
    r'^<a id="d(\d+)"></a>\*\*(\d+)\.\*\* 20\d\d-\d\d-\d\d\. (?:~~)?\*\*[^*]', re.MULTILINE
)
NAMED = re.compile(r"\b(?:[Dd]ecisions?|Superseded by)\s+(\d+)|decisions\.md#d(\d+)")
READ = (".md", ".py", ".toml", ".ipynb", ".yml")


def numbers() -> list[int]:
    """The numbers in the order of the page."""
    return [int(match[2]) for match in ENTRY.finditer(PAGE)]


def test_all_numbers_are_there_once_beside_their_anchors() -> None:
    last = re.search(r"The last number is (\d+)\.", PAGE)
    assert last and sorted(numbers()) == list(range(1, int(last[1]) + 1))
    assert all(match[1] == match[2] for match in ENTRY.finditer(PAGE))
    assert len(numbers()) == len(re.findall(r"^(?:<a id|\*\*\d)", PAGE, re.MULTILINE))


@pytest.mark.parametrize("part", PAGE.split("\n## ")[1:], ids=lambda part: part.splitlines()[0])
def test_a_package_has_its_decisions_in_the_order_of_their_numbers(part) -> None:
    found = [int(match[2]) for match in ENTRY.finditer(part)]
    assert found and found == sorted(found)


def test_every_decision_that_is_named_exists() -> None:
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."]
    kept = [path for path in folders if path.name not in ("build", "dist", "runs")]
    files = [*ROOT.glob("*.*"), *(path for folder in kept for path in folder.rglob("*.*"))]
    texts = [p.read_text(encoding="utf-8") for p in files if p.suffix in READ and p.is_file()]
    named = {int(a or b) for text in texts for a, b in NAMED.findall(text)}
    assert {10, 11, 51} <= named <= set(numbers())
