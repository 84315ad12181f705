"""The README stays true: its tree, its targets of make, its numbers that code also holds.

Flags and recipes in its commands are looked at with those of the pages (docs/test_contents.py).
"""

import re
import subprocess
from pathlib import Path

from parity.twins.cases import pairwise_configs

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


def test_the_number_of_parity_configs() -> None:
    all_of_them = len(pairwise_configs())
    stated = re.search(r"of the\s+(\d+)\s+configs that hold every pair", README)
    assert stated and int(stated[1]) == all_of_them
    rows = re.findall(r"^(\S.*?)  .* (\d+)  PASS$", README, re.MULTILINE)
    found = {what: int(configs) for what, configs in rows}
    everywhere = [what for what, configs in found.items() if configs == all_of_them]
    assert everywhere == [
        *("attention", "feed-forward", "encoder layer", "decoder layer", "encoder", "decoder"),
        *("logits", "weights there and back, changed bytes"),
    ]
    some = len(pairwise_configs()[::3])
    assert [what for what, configs in found.items() if configs == some] == [
        "loss, dropout on",
        "every gradient, dropout on",
    ]
    assert {configs for what, configs in found.items()} == {all_of_them, some, 1}
