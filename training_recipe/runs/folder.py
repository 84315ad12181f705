"""The layout of a run folder.

A folder holds config.json, settings.json, vocabulary/, metrics.jsonl, tensorboard/, curves.png,
checkpoints/step_00001000/ and the link best to one of them, or to the mean of some of them,
checkpoints/average_00001000_of_10/. One that began with a model of another folder has what came
with it besides: search.json, origin.json and original/.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from training_recipe.files.json_files import read_json
from training_recipe.files.writing import folder_aside, make_parent, remove
from training_recipe.options.invocation import typed
from transformer_spec.errors import UserError
from transformer_spec.strict import is_whole

CHECKPOINTS = "checkpoints"
STEP_FOLDER = re.compile(r"step_(\d{8,})")
AVERAGE_FOLDER = re.compile(r"average_\d{8,}_of_\d+")


class RunFolder:
    """Where everything of one run lies."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.settings = self.path / "settings.json"
        self.vocabulary = self.path / "vocabulary"
        self.search = self.path / "search.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.curves = self.path / "curves.png"
        self.checkpoints = self.path / CHECKPOINTS
        self.best = self.path / "best"

    @classmethod
    def create(cls, path: Path, fill: Callable[[RunFolder], None]) -> RunFolder:
        """A new run folder, filled aside and then renamed; an existing one is a UserError."""
        with cls.aside(path) as aside:
            fill(aside)
        return cls(path)

    @classmethod
    @contextlib.contextmanager
    def aside(cls, path: Path) -> Iterator[RunFolder]:
        """A new run folder to fill, renamed to ``path`` where the block ends well.

        Else nothing is left of it, nor of the folders that it was to lie in and that were made.
        """
        if os.path.lexists(path):
            raise already_there(path)
        made = [place for place in path.parents if not place.exists()]
        try:
            make_parent(path)
            with folder_aside(path) as partial:
                aside = cls(partial)
                aside.checkpoints.mkdir()
                yield aside
                aside.metrics.touch()
        except UserError:
            if os.path.lexists(path):  # another process was quicker
                raise already_there(path) from None
            raise
        finally:
            for place in made:
                with contextlib.suppress(OSError):  # it is not empty
                    place.rmdir()

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run folder; a UserError names what is missing from it."""
        run = cls(path)
        if not run.path.is_dir():
            raise UserError(f"{path} is not a run folder: no such folder")
        needed = (run.config, run.settings, run.vocabulary, run.checkpoints)
        missing = [part.name for part in needed if not part.exists()]
        if missing:
            raise UserError(f"{path} is not a run folder: it has no {', '.join(missing)}")
        return run

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint of ``step``."""
        return self.checkpoints / f"step_{step:08d}"

    def average(self, step: int, count: int) -> Path:
        """The folder of the mean of ``count`` checkpoints, the newest of which is ``step``'s."""
        return self.checkpoints / f"average_{step:08d}_of_{count}"

    def averages(self) -> list[Path]:
        """The folders of all means that were written."""
        found = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        return sorted(part for part in found if AVERAGE_FOLDER.fullmatch(part.name))

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        if not self.checkpoints.is_dir():
            return []
        names = [STEP_FOLDER.fullmatch(part.name) for part in self.checkpoints.iterdir()]
        return sorted(int(match.group(1)) for match in names if match)

    def best_or_newest(self) -> Path:
        """The checkpoint to use a run by: the best, or the newest where none is marked best."""
        if self.best.is_dir():
            found = Path(os.path.realpath(self.best))
            near = self.checkpoints / found.name  # as the run was named, where that is it
            return near if near.is_dir() and near.samefile(found) else found
        if not self.steps():
            raise self.emptied() or UserError(
                f"{self.path} has no checkpoint yet; train on by --resume {typed(self.path)}, or, "
                "where its training diverged, remove it and start anew with other settings"
            )
        return self.checkpoint(self.steps()[-1])

    def emptied(self) -> UserError | None:
        """That all checkpoints are gone, by what the run says of them; None where none was made."""
        saved = self._saved()
        if self.steps() or saved is None:
            return None
        return UserError(
            f"{self.path} has no checkpoint any more: one of step {saved} was saved, and "
            f"{self.checkpoints} holds none; the run cannot go on: put it back, or train anew"
        )

    def _saved(self) -> int | None:
        """The step of a checkpoint that was made, by settings.json or the link to the best."""
        link = os.readlink(self.best) if self.best.is_symlink() else ""
        best = STEP_FOLDER.fullmatch(Path(link).name)
        with contextlib.suppress(UserError):
            said = read_json(self.settings).get("newest_checkpoint")
            if is_whole(said, 0):
                return said
        return int(best[1]) if best else None

    def remove_leftovers(self) -> list[str]:
        """Remove what a killed process left half-written; the names removed."""
        places = [self.path, *(p for p in (self.checkpoints,) if p.is_dir())]
        leftovers = [part for place in places for part in place.glob(".*.partial-*")]
        for part in leftovers:
            remove(part)
        return sorted(part.name for part in leftovers)


def already_there(path: Path, flag: str = "--name or --out") -> UserError:
    """The error for what would be overwritten: a run, or whatever else has the path."""
    choose = f"choose another {flag}"
    try:
        run = RunFolder.open(path)
    except UserError:
        what = "a folder, and no run" if path.is_dir() else "no run"
        return UserError(f"{path} exists already and is {what}; {choose}")
    if (emptied := run.emptied()) is not None:
        return UserError(f"{path} exists already; {emptied}, by another name, or remove it")
    going_on = f"go on with it by --resume {typed(path)}"
    if run.steps():
        return UserError(f"{path} exists already and is never overwritten; {going_on}, or {choose}")
    return UserError(
        f"{path} exists already and has no checkpoint yet; {going_on}, with the settings that it "
        f"has, or remove it, if nothing trains it, or {choose}"
    )
