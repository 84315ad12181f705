"""The mean of a run's last checkpoints: what was averaged is written beside it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training_recipe.backend import Backend
from training_recipe.checkpoints import PROGRESS, disk_full_is_clear, fingerprints
from training_recipe.run_folder import (
    RunFolder,
    partial_path,
    point_link,
    read_json,
    sync_tree,
    write_json,
    written_aside,
)
from transformer_spec import UserError

ORIGIN = "average.json"
KEPT = ("step", "backend", "files")


def save_average(run: RunFolder, backend: Backend, steps: list[int]) -> Path:
    """Make the mean of the checkpoints of ``steps`` what the run is used by; its folder.

    It is written if it is not there already, whole. Means of other steps are removed.
    """
    folder, parts = run.average(steps[-1], len(steps)), [run.checkpoint(step) for step in steps]
    with disk_full_is_clear(run, f"cannot save {folder.name}"):
        if not is_mean_of(folder, parts):
            with replaced(folder) as partial:
                backend.average(parts, partial)
        point_link(run.best, folder)
    for other in run.averages():
        if other != folder:
            shutil.rmtree(other)
    return folder


def record_mean(folders: list[Path], destination: Path) -> None:
    """Write average.json into a folder that holds the mean of checkpoint folders: of which."""
    origins = [{"checkpoint": str(folder)} | _origin(folder) for folder in folders]
    write_json(destination / ORIGIN, {"mean_of": origins, "files": _files(destination)})


def is_mean_of(folder: Path, parts: list[Path]) -> bool:
    """Whether a folder holds the mean of these very checkpoints, undamaged."""
    if not (folder / ORIGIN).is_file():
        return False
    try:
        written = read_json(folder / ORIGIN)
    except UserError:
        return False
    origins = [_origin(part) for part in parts]
    known = all(origin["files"] for origin in origins)
    return known and _kept(written) == origins and written.get("files") == _files(folder)


def _kept(written: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What average.json says of each checkpoint, as ``_origin`` does; None where it is damaged."""
    means = written.get("mean_of")
    if not isinstance(means, list) or not all(isinstance(part, dict) for part in means):
        return None
    return [{name: part.get(name) for name in KEPT} for part in means]


def _origin(folder: Path) -> dict[str, Any]:
    progress = read_json(folder / PROGRESS)
    return {name: progress.get(name) for name in KEPT}


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    return {name: found for name, found in fingerprints(folder).items() if name != ORIGIN}


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``folder``, if there is one, once it is whole."""
    before = partial_path(folder)
    with written_aside(folder) as partial:
        yield partial
        sync_tree(partial)
        if folder.exists():
            folder.rename(before)
    shutil.rmtree(before, ignore_errors=True)
