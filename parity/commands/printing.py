"""What commands share: progress on a terminal, where a picture may go."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from training_recipe.files.writing import check_parent
from transformer_spec import Faults, UserError


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], object]]:
    """Say what is being done, and for how long already, on a terminal."""
    from tqdm import tqdm

    with tqdm(desc="reading", bar_format="{desc} {elapsed}", disable=None, leave=False) as bar:
        yield bar.set_description_str


@contextlib.contextmanager
def seconds_of_code(seconds: float) -> Iterator[None]:
    """The time that code of the user's may take."""
    from parity.sides.own_code import SECONDS

    token = SECONDS.set(seconds)
    try:
        yield
    finally:
        SECONDS.reset(token)


def said(line: str) -> None:
    """A line as soon as it is known, also in a file."""
    print(line, flush=True)


def silent(line: str) -> None:
    """Nothing: where JSON is asked for, all is printed at the end."""


def check_picture(path: Path, faults: Faults) -> None:
    """What --plot is given must be a PNG in a folder that is there."""
    _check_file("--plot", path, ".png", faults)


def check_page(path: Path, faults: Faults) -> None:
    """What --html is given must be an HTML file in a folder that is there."""
    _check_file("--html", path, ".html", faults)


def _check_file(flag: str, path: Path, ending: str, faults: Faults) -> None:
    """A file to be written: its name, its folder, and whether this user may write there."""
    faults.require(path.suffix == ending, f"{flag} {path} must end in {ending}")
    if not os.path.isdir(path.parent):
        faults.add(f"{flag} {path}: there is no folder {path.parent}")
        return
    faults.require(not os.path.isdir(path), f"{flag} {path} is a folder; name a file")
    try:
        check_parent(path)
    except UserError as error:
        faults.add(f"{flag}: {error}")
