"""What commands share: progress on a terminal, where a picture may go."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from transformer_spec import Faults


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
    faults.require(path.suffix == ".png", f"--plot {path} must end in .png")
    faults.require(path.parent.is_dir(), f"--plot {path}: there is no folder {path.parent}")
