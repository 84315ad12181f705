"""Where a conversion reads and writes: what is wrong with either is told together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeGuard

from convert.checkpoints.folders.location import is_elsewhere, locate
from convert.checkpoints.reading import open_content
from transformer_spec import Faults, UserError
from transformer_spec.errors import text_fault


def check_destination(source: Path, dest: Path) -> None:
    """Never in place: a destination that exists or lies inside the source is a UserError."""
    if dest.exists() or dest.is_symlink():
        raise UserError(f"{dest} exists already; name a folder that does not")
    if Path(os.path.realpath(source)) in Path(os.path.realpath(dest)).parents:
        raise UserError(f"{dest} is inside {source}, which stays as it is; name a folder elsewhere")


def check_places(source: Path, dest: Path, key: str | None) -> None:
    """``check_destination``, and where that is at fault what is wrong with the source as well."""
    faults = Faults()
    try:
        check_destination(source, dest)
    except UserError as error:
        faults.take(error)
        add_source_faults(source, key, faults)
        if len(faults.messages) == 1:
            raise
    faults.raise_if_any("this cannot be converted")


def is_path(value: object) -> TypeGuard[Path]:
    """Whether a value is a path that a system can take."""
    return isinstance(value, Path) and text_fault(str(value)) is None


def add_source_faults(source: object, key: object, faults: Faults) -> None:
    """Why a source cannot be opened, beside other faults; nothing is got from the Hub for that."""
    if not is_path(source) or not isinstance(key, str | None) or is_elsewhere(source):
        return
    try:
        open_content(locate(source).weights, key, verify=False)
    except UserError as error:
        faults.take(error)
