"""Where weights are: in a run, a checkpoint, a converted folder, a file, or on the Hub."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path

from convert.checkpoints.folders.config_files import CONFIG, config_places, has_our_config
from convert.checkpoints.folders.file_names import CONTAINER_OF, MODELS
from convert.checkpoints.folders.hub import Repository, get, hub_name
from training_recipe.runs.folder import RunFolder
from transformer_spec import UserError
from transformer_spec.errors import broken_link, refusals_told, system_fault

FILE = "weight file"


@dataclass(frozen=True)
class Located:
    """Where the weights are, and the folder that holds config.json, or None.

    ``hub`` is the repository that they were got from.
    """

    weights: Path
    home: Path | None
    kind: str
    hub: Repository | None = None

    @property
    def name(self) -> Path:
        """What to call it."""
        return Path(self.hub.name) if self.hub else self.weights

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user may not expect of the place that was chosen."""
        if self.hub is not None and self.hub.note:
            return (self.hub.note,)
        if self.kind == "run" and self.weights.name == RunFolder(self.weights).checkpoint(0).name:
            return (
                f"the best checkpoint of {self.home} is that of step 0: the model as it came, "
                "unchanged by training; another is named by its folder under checkpoints/",
            )
        return ()


def locate(path: Path) -> Located:
    """Tell run, checkpoint, converted and Orbax folders and weight files apart.

    A run is used by its best checkpoint, or by its newest where none is marked. What is not there
    and may be a repository of the Hub, OWNER/NAME[@REVISION], is got from it.
    """
    try:
        os.stat(path)
    except OSError as error:
        if not _is_missing(error) or path.is_symlink() or hub_name(path) is None:
            raise UserError(_not_there(path, error)) from None
        folder, repository = get(path, MODELS, tuple(CONTAINER_OF))
        return replace(locate(folder), hub=repository)
    with refusals_told():
        return _told_apart(path)


def _told_apart(path: Path) -> Located:
    """What a path is that is there."""
    if path.is_file():
        beside = path.parent if has_our_config(path.parent) else None
        return Located(path, beside, FILE)
    ours = has_our_config(path)
    if (path / CONFIG).is_file() and not ours:
        return Located(path, None, "weight folder")
    if (path / "checkpoints").is_dir():
        return Located(RunFolder(path).best_or_newest(), path, "run")
    if ours:
        return Located(path, path, "model folder")
    above = Path(os.path.realpath(path)).parent
    home = next((place for place in config_places(path) if has_our_config(place)), None)
    if home is not None:
        return Located(path, home, "Orbax folder")
    if above.name == "checkpoints" and has_our_config(above.parent):
        return Located(path, above.parent, "checkpoint")
    return Located(path, None, "weight folder")


def is_elsewhere(path: Path) -> bool:
    """Whether a path is not there, and may be a repository of the Hub."""
    return not os.path.lexists(path) and hub_name(path) is not None


def _is_missing(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ENOTDIR)


def _not_there(path: Path, error: OSError) -> str:
    if not _is_missing(error):
        return system_fault(error)
    if lost := broken_link(path):
        return lost
    alone = len(path.parts) == 1 and not path.suffix
    hub = "; a repository of the Hugging Face Hub is named with its owner, OWNER/NAME"
    return f"{path} does not exist{hub if alone else ''}"
