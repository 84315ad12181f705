"""README is a page of one look; its commands run and its numbers hold as those of the site's pages.

Its blocks are run by docs/test_pages.py, its flags looked up by docs/test_contents.py.
"""

import re
from pathlib import Path

from parity.twins.cases import pairwise_configs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"`make ([\w-]+)`", README)
    assert "test" in named and "train" in named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_its_links_lead_to_files() -> None:
    named = re.findall(r"\]\(([^)#]+)", README)
    assert len(named) > 10 and all((ROOT / name).exists() for name in named), named


def test_its_numbers() -> None:
    (slips,) = re.findall(r"(\d+) are\s+\[planted", README)
    (configs,) = re.findall(r"on (\d+) configs that hold every pair", README)
    table = (ROOT / "docs/parity.md").read_text(encoding="utf-8")
    planted = re.findall(r"^\| \S.* \| (?:passes|caught) \|$", table, re.MULTILINE)
    assert (int(slips), int(configs)) == (len(planted), len(pairwise_configs()))
