"""The mean of a run's last checkpoints: what was averaged is written beside it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from convert.checkpoints.averaging import write_average
from training_recipe.files.writing import (
    folder_aside,
    partial_path,
    point_link,
    sync_tree,
)
from training_recipe.runs.averages import is_mean_of
from training_recipe.runs.folder import RunFolder
from transformer_spec import TransformerConfig
from twinformer.training.checkpoints import disk_full_is_clear


def save_average(run: RunFolder, config: TransformerConfig, steps: list[int]) -> Path:
    """Make the mean of the checkpoints of ``steps`` what the run is used by; its folder.

    It is written if it is not there already, whole. Means of other steps are removed.
    """
    folder, parts = run.average(steps[-1], len(steps)), [run.checkpoint(step) for step in steps]
    with disk_full_is_clear(run, f"cannot save {folder.name}"):
        if not is_mean_of(folder, parts):
            with replaced(folder) as partial:
                write_average(parts, config, partial)
        point_link(run.best, folder)
    for other in run.averages():
        if other != folder:
            shutil.rmtree(other)
    return folder


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of ``folder``, if there is one, once it is whole."""
    before = partial_path(folder)
    with folder_aside(folder) as partial:
        yield partial
        sync_tree(partial)
        if folder.exists():
            folder.rename(before)
    shutil.rmtree(before, ignore_errors=True)
