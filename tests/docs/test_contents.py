"""What README and the pages name is there: flags, recipes, families, files of the repository."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import DOCS, ROOT, blocks, commands

from convert.__main__ import COMMANDS as CONVERTING
from convert.checkpoints.folders.file_names import MODELS
from convert.conversion.request import sources
from convert.conversion.target import targets
from convert.families.registry import FAMILIES
from convert.naming.family import NamedFamily
from parity.__main__ import COMMANDS as PROVING
from training_recipe.options.request import recipe_file

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
CHECKPOINTS = (DOCS / "checkpoints.md").read_text(encoding="utf-8")
WRITTEN_BY_LIBRARIES = ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
HELP = {
    "train.py": ["train.py"],
    "translate.py": ["translate.py"],
    "diversify.py": ["diversify.py"],
    "-m convert": ["-m convert", *(f"-m convert {word}" for word in CONVERTING)],
    "-m parity": ["-m parity", *(f"-m parity {word}" for word in PROVING)],
}
# Words of `twinformer` that are not as the module of that name is called.
CALLED = {
    **{f"twinformer {word}": f"{word}.py" for word in ("train", "translate", "diversify")},
    **{f"twinformer {word}": f"-m {word}" for word in ("convert", "parity")},
    **{f"twinformer {word}": f"-m convert {word}" for word in ("inspect", "average")},
}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
# Pages whose text speaks of flags of benchmarks, tests and other programs too.
OF_MANY = (
    "benchmarks", "decisions", "log", "many-devices", "parity", "reported-inputs", "speech",
)  # fmt: skip
GUIDES = [page for page in PAGES if page.stem not in OF_MANY]
OF_OTHERS = {"--thorough", "--families-table", "--source", "--target", "--text", "--texts"}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def lines(page: Path) -> list[str]:
    """The commands of a page, as ``python`` would be asked for them."""
    found = [line for block in blocks(page) if block.kind == "sh" for line in commands(block)]
    for word, start in CALLED.items():
        found = [re.sub(rf"^(python -m )?{word}\b", f"python {start}", line) for line in found]
    return [line.removeprefix("python ") for line in found if line.startswith("python ")]


@functools.cache
def flags_of(start: str) -> set[str]:
    """The flags in the help of all words of a program."""
    known: set[str] = set()
    for words in HELP[start]:
        done = subprocess.run(
            [sys.executable, *words.split(), "--help"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, words
        known |= set(FLAG.findall(done.stdout))
    return known


@pytest.mark.parametrize("start", HELP)
def test_every_flag_in_a_command_exists(start: str) -> None:
    """Also of pages that are run by ``make thorough`` alone."""
    found = {
        (flag, page.name)
        for page in PAGES
        for line in lines(page)
        if line.startswith(start)
        for flag in FLAG.findall(line)
    }
    unknown = {pair for pair in found if pair[0] not in flags_of(start)}
    assert found and not unknown


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_every_flag_in_the_text_of_a_page_exists(page: Path) -> None:
    unknown = set(FLAG.findall(text_of(page))) - set().union(*map(flags_of, HELP)) - OF_OTHERS
    assert not unknown


def test_the_page_of_checkpoints_names_flags_files_and_families_that_there_are() -> None:
    known = flags_of("-m convert")
    flags = set(FLAG.findall(CHECKPOINTS)) - {"--local-dir"}
    assert "--merge-adapter" in flags and flags <= known, flags - known
    assert all(f"`{name}`" in CHECKPOINTS for name in MODELS if name in WRITTEN_BY_LIBRARIES)
    assert set(re.findall(r"--(?:to|from) ([a-z][\w-]+)", CHECKPOINTS)) <= {*targets(), *sources()}


def test_the_table_of_families_has_all_and_no_other() -> None:
    table = text_of(DOCS / "families.md").split("## The families")[1].split("\n\n")[1]
    firsts = [row.split("|")[1] for row in table.splitlines()[2:]]
    named = {match[1] for first in firsts if (match := re.match(r" `([\w-]+)`", first))}
    of_tables = {name for name, one in FAMILIES.items() if isinstance(one, NamedFamily)}
    assert named == (FAMILIES.keys() - of_tables) | {"ctranslate2"}
    assert len(of_tables) == 12 and "one of twelve that come along" in table


def test_recipes_that_are_named_exist_and_all_are_named() -> None:
    named = {name for page in PAGES for name in re.findall(r"--recipe ([\w.-]+)", text_of(page))}
    assert all(recipe_file(name).is_file() for name in named - {"FILE"})
    every = {path.stem for path in recipe_file("cmudict").parent.glob("*.toml")}
    training = text_of(DOCS / "training.md")
    assert every == {name for name in every if f"`{name}`" in training}


def test_every_file_of_the_repository_that_a_page_names_is_there() -> None:
    inside = re.compile(r"`((?:examples|tests|benchmarks|docs)/[\w/.-]+\.\w+)`")
    named = {(name, page.name) for page in PAGES for name in inside.findall(text_of(page))}
    assert named and all((ROOT / name).is_file() for name, _ in named), named
