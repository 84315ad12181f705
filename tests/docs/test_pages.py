"""Every command and every Python block of docs/ and of the README is run, in its order.

A page has a folder of its own with what its commands read (page_folders.py). What a page runs
takes seconds and sometimes minutes: pages marked ``thorough`` are run by ``make thorough`` alone,
and their commands' flags are checked by all.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_blocks import DOCS, ROOT, RUN, SHOWN, Block, blocks, commands
from page_commands import run
from page_folders import PAGES

ALL = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
# Pages whose commands have a test of their own, which says how.
ELSEWHERE = {
    "docs/many-devices.md": "test_many_devices.py",
    "docs/your-own-model.md": "test_your_own_model.py",
}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def has_code(page: Path) -> bool:
    return any(block.kind in RUN for block in blocks(page))


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    odd = [block for block in blocks(page) if block.kind not in (*RUN, *SHOWN)]
    assert not odd, f"{name_of(page)}: a fence needs one of {RUN + SHOWN}: {odd}"


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_every_fence_is_of_a_block_that_is_read(page: Path) -> None:
    """Also one of tildes, of four ticks, in a quotation, or one that is never closed."""
    fences = re.findall(r"^[\s>]*(?:`{3}|~{3}).*", page.read_text(encoding="utf-8"), re.M)
    assert len(fences) == 2 * len(blocks(page)), fences


def test_every_page_with_code_has_a_folder_to_run_in() -> None:
    with_code = {name_of(page) for page in ALL if has_code(page)}
    assert with_code == PAGES.keys() | ELSEWHERE.keys()
    assert all(list((ROOT / "tests").rglob(name)) for name in ELSEWHERE.values())


def test_a_block_is_cut_into_commands() -> None:
    block = Block("sh", "a b  # c\n\n# d\ne \\\n    f 'g #h'\n", 1)
    assert commands(block) == ["a b", "e f 'g #h'"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.thorough] * PAGES[n].thorough) for n in sorted(PAGES)],
)
def test_all_of_a_page_is_run(name: str, tmp_path, monkeypatch, request, both_frameworks) -> None:
    page = PAGES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    page.fill(tmp_path, request)
    names = {"__name__": "page"}
    for block in blocks(ROOT / name):
        text = block.text
        for old, new in page.changes:
            text = text.replace(old, new)
        if block.kind == "python":
            lines = "\n" * block.line + text  # so that a fault names the page's line
            exec(compile(lines, name, "exec"), names)
        elif block.kind == "sh":
            for line in commands(Block("sh", text, block.line)):
                status = run(line, tmp_path)
                assert status == page.statuses.get(line, 0), f"{name}:{block.line}: {line}"
    unused = [old for old, _ in page.changes if old not in (ROOT / name).read_text("utf-8")]
    assert not unused, f"nothing on the page is {unused}"
