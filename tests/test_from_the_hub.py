"""The first five commands of docs/hub.md, as they stand there, against a Hub and in processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from folders_of_hub import program, sentences
from page_blocks import DOCS, ROOT, blocks
from page_blocks import commands as lines_of

# What a test has no time for: as many steps and as many examples as the preset has, and gradients.
SHORT = {
    "train.py": "--steps 2 --valid-examples 0 --test-examples 0 --batch-shapes 1 --device cpu",
    "parity": "--no-gradients",
}


def commands() -> list[list[str]]:
    """The commands of the page's first block, scripts by their paths."""
    first = next(block for block in blocks(DOCS / "hub.md") if block.kind == "sh")
    lines = [shlex.split(line) for line in lines_of(first)]
    return [[str(ROOT / word) if word.endswith(".py") else word for word in x] for x in lines]


@pytest.fixture(scope="module")
def place(hub_folders, tmp_path_factory) -> Path:
    """A folder with a corpus, and one repository for the Hub."""
    home = tmp_path_factory.mktemp("from_the_hub")
    (home / "corpus").mkdir()
    for language in ("en", "de"):
        lines = sentences("train", language)[:60]
        (home / f"corpus/train.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    folder = hub_folders.copy("marian", home / "repository")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (folder / "LICENSE").write_text("Apache License 2.0\n")
    return home


@pytest.mark.thorough
def test_they_do_what_the_page_says(place: Path) -> None:
    pytest.importorskip("huggingface_hub")
    given = commands()
    assert [words[0] for words in given] == ["python"] * 5
    name = next(word for word in given[0] if "/" in word)
    folder = place / "repository"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS"))}
    environment |= {"HF_HOME": str(place / "cache"), "PYTHONPATH": str(ROOT)}
    said = []
    with program("fake_hub").FakeHub({name: folder}) as hub:
        environment["HF_ENDPOINT"] = hub.address
        for words in given:
            named = Path(words[2] if words[1] == "-m" else words[1]).name
            more = SHORT.get(named, "").split()
            done = subprocess.run(
                [sys.executable, *words[1:], *more],
                cwd=place, env=environment, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, (words, done.stderr)
            said.append(done.stdout)
    ledger = json.loads((place / "mine/conversion.json").read_text())
    assert ledger["hub"]["repository"] == name and re.fullmatch(
        "[0-9a-f]{40}", ledger["hub"]["commit"]
    )
    assert said[1].strip() and said[4].splitlines()[-1].startswith("PASS: same function")
    check_back(folder, place / "back")


def check_back(folder: Path, back: Path) -> None:
    """The same files came back, byte for byte but for the weights."""
    names = {path.name for path in folder.iterdir()}
    assert {path.name for path in back.iterdir()} == names | {"conversion.json"}
    changed = {n for n in names if (folder / n).read_bytes() != (back / n).read_bytes()}
    assert changed == {"model.safetensors"}
