"""The README stays true: its tree, its targets of make, its numbers that code also holds.

Flags and recipes in its commands are looked at with those of the pages (docs/test_contents.py).
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_names_every_package_and_nothing_else() -> None:
    tree = README.split("## The house")[1].split("```")[1]
    named = {line.split()[0].rstrip("/") for line in tree.strip().splitlines()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = listed.stdout.splitlines() or [p.name for p in ROOT.iterdir()]
    top = {name.partition("/")[0] for name in files if "/" in name or name.endswith(".py")}
    assert named == {name for name in top if not name.startswith(".")}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([\w-]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
