"""What lies around the arrays of a T5X checkpoint: its step, and the gin file of its training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.tensors import Tensors
from convert.families.t5x.form import HALVES
from convert.families.t5x.settings import GIN, STEP, kept_of
from convert.formats.gin import read_gin
from convert.formats.orbax import AGGREGATE

GIN_FILES = ("config.gin", "operative_config.gin", "model.gin")
FOLDER = re.compile(rf".*{AGGREGATE}_(\d{{1,18}})")
NORMS = tuple(f"{half}.{half}_norm.scale" for half in HALVES)


def is_t5x(tensors: Tensors) -> bool:
    """Whether weights have T5X's names."""
    return all(name in tensors for name in NORMS)


def t5x_settings(path: Path, tensors: Tensors) -> dict[str, Any]:
    """The step of a checkpoint, and what a gin file in its folder or in the one above binds."""
    folder = path if path.is_dir() else path.parent
    file = _gin_beside(folder)
    found = {GIN: kept_of(read_gin(file))} if file is not None else {}
    return {STEP: _step(path, tensors), **found}


def steps_in(tensors: Tensors) -> list[str]:
    """The arrays that say how many steps were made."""
    return [name for name in tensors if f".{name}".endswith(f".state.{STEP}")]


def _gin_beside(folder: Path) -> Path | None:
    """The gin file in a folder, else in the one above, where runs have it."""
    places = [folder / name for name in GIN_FILES]
    places += [folder.parent / name for name in GIN_FILES] if FOLDER.match(folder.name) else []
    return next((place for place in places if place.is_file()), None)


def _step(path: Path, tensors: Tensors) -> int:
    """The number of steps that the checkpoint says, or its name; else 0."""
    for name in steps_in(tensors):
        array = tensors.read(name)
        if array.size == 1 and array.dtype.kind in "iu":
            return max(int(np.reshape(array, ())), 0)
    named = FOLDER.fullmatch(path.name)
    return int(named[1]) if named else 0
