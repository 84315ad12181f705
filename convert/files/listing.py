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
    """A file by its name inside the folder listed, with ``/`` between the parts of it.

    ``sha256`` is None where it was not asked for, or where ``fault`` says why the file cannot be
    carried. ``inside`` is the number of files of a folder, of which the name stands for all.
    """

    name: str
    path: Path
    sha256: str | None = None
    fault: str = ""
    inside: int | None = None

    @property
    def number_inside(self) -> str:
        """How many files a folder holds, in words."""
        count = self.inside or 0
        if count > MOST:
            return f"more than {MOST:,} files"
        return f"{count:,} file{'s' if count != 1 else ''}"


@dataclass(frozen=True)
class Listing:
    """How folders are listed: which files are wanted by name, which folders are opened.

    Links may lead to files below ``root``. Without ``hashed`` no file is read.
    """

    root: Path
    wanted: Callable[[str], bool]
    opened: tuple[str, ...] = ()
    hashed: bool = True

    def all(self) -> list[Found]:
        """All that is there, sorted; folders that are not opened are one entry each.

        Nothing here is an error: what cannot be carried says why, of files that are wanted.
        """
        found = list[Found]()
        for path in _inside(self.root):
            if path.name in self.opened and path.is_dir():
                found += [self._file(inner, f"{path.name}/{inner.name}") for inner in _inside(path)]
            else:
                found.append(self._file(path, path.name))
        return found

    def _file(self, path: Path, name: str) -> Found:
        if path.is_dir() and not path.is_symlink():
            return Found(name, path, inside=_count(path))
        if not self.wanted(name):
            return Found(name, path)
        try:
            fault = self._fault(path)
            known = fingerprint(path) if self.hashed and not fault else {}
        except (OSError, RuntimeError) as error:
            told = system_fault(error) if isinstance(error, OSError) else str(error)
            return Found(name, path, fault=f"it cannot be read ({told})")
        return Found(name, path, known.get("sha256"), fault)

    def _fault(self, path: Path) -> str:
        """Why a file is not to be read, or nothing."""
        if path.is_symlink() and not _leads_inside(self.root, path):
            return "it is a link that leads out of the folder"
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            linked = stat.S_ISDIR(status.st_mode)
            return f"it is {'a link to a folder' if linked else 'no plain file'}"
        large = f"it is larger than {LARGEST // 10**6} MB, the most that is carried"
        return large if status.st_size > LARGEST else ""


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _leads_inside(root: Path, path: Path) -> bool:
    """Whether a link stays in a folder, or in the repository's part of the Hub's cache."""
    home, target = Path(os.path.realpath(root)), Path(os.path.realpath(path))
    blobs = home.parent.parent / BLOBS
    cached = home.parent.name == SNAPSHOTS and blobs in target.parents
    return home in target.parents or cached


def _count(folder: Path) -> int:
    """Files below a folder; the count ends where it is above ``MOST``."""
    count = 0
    for _, _, names in os.walk(folder):
        count += len(names)
        if count > MOST:
            break
    return count
