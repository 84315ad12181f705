"""What lies in a folder: every file with its fingerprint, or why it cannot be carried."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training_recipe.files.fingerprints import fingerprint
from transformer_spec.errors import system_fault

LARGEST = 256 * 10**6  # bytes of a file that is carried
MOST = 10_000  # files of a folder that are counted
SNAPSHOTS, BLOBS = "snapshots", "blobs"  # of the Hub's cache


@dataclass(frozen=True)
class Found:
    """A file by its name inside the folder, with ``/`` between the parts of it.

    ``sha256`` is None where it was not asked for, or where ``fault`` says why the file cannot be
    carried. ``inside`` is the number of files of a folder, of which the name stands for all.
    """

    name: str
    path: Path
    size: int = 0
    sha256: str | None = None
    fault: str = ""
    inside: int | None = None


def list_folder(
    folder: Path,
    wanted: Callable[[str], bool],
    opened: tuple[str, ...] = (),
    root: Path | None = None,
) -> list[Found]:
    """All that a folder holds, sorted; ``wanted`` are the names whose bytes are fingerprinted.

    Folders in it are one entry each, but for those named in ``opened``. Links may lead to files
    below ``root``, the folder itself unless told. Nothing here is an error.
    """
    found, root = list[Found](), root or folder
    try:
        parts = sorted(folder.iterdir())
    except OSError as error:
        return [Found(".", folder, fault=f"it cannot be read ({system_fault(error)})")]
    for path in parts:
        if path.name in opened and path.is_dir():
            inner = list_folder(path, lambda n, at=path.name: wanted(f"{at}/{n}"), root=root)
            found += [_inside(path.name, each) for each in inner if each.name != "."]
        elif path.is_dir() and not path.is_symlink():
            found.append(Found(path.name, path, inside=_count(path)))
        else:
            found.append(_file(root, path, wanted(path.name)))
    return found


def _inside(place: str, found: Found) -> Found:
    return Found(
        f"{place}/{found.name}", found.path, found.size, found.sha256, found.fault, found.inside
    )


def _file(root: Path, path: Path, wanted: bool) -> Found:
    try:
        if path.is_symlink() and not _leads_inside(root, path):
            return Found(path.name, path, fault="it is a link that leads out of the folder")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a link to a folder" if stat.S_ISDIR(status.st_mode) else "no plain file"
            return Found(path.name, path, fault=f"it is {what}")
        if not wanted:
            return Found(path.name, path, status.st_size)
        if status.st_size > LARGEST:
            fault = f"it is larger than {LARGEST // 10**6} MB, the most that is carried"
            return Found(path.name, path, status.st_size, fault=fault)
        known = fingerprint(path)
    except (OSError, RuntimeError) as error:
        told = system_fault(error) if isinstance(error, OSError) else str(error)
        return Found(path.name, path, fault=f"it cannot be read ({told})")
    return Found(path.name, path, known["bytes"], known["sha256"])


def _leads_inside(root: Path, path: Path) -> bool:
    """Whether a link stays in a folder, or in the repository's part of the Hub's cache."""
    home, target = Path(os.path.realpath(root)), Path(os.path.realpath(path))
    blobs = home.parent.parent / BLOBS
    cached = home.parent.name == SNAPSHOTS and blobs in target.parents
    return home in target.parents or cached


def _count(folder: Path) -> int:
    """Files below a folder, counted no further than ``MOST``."""
    count = 0
    for _, _, names in os.walk(folder):
        count += len(names)
        if count > MOST:
            break
    return min(count, MOST)
