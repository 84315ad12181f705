"""Writing that is whole or absent: aside under a hidden name, onto the disk, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def partial_path(path: Path) -> Path:
    """A hidden name beside ``path`` under which it is written before it is renamed."""
    return path.parent / f".{path.name}.partial-{secrets.token_hex(4)}"


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """An empty folder that becomes ``path``, on disk and whole, when the block ends well."""
    partial = partial_path(path)
    partial.mkdir()
    try:
        yield partial
        sync_tree(partial)
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Wait until every file and folder below ``folder`` is on disk."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place) / name)
        sync(Path(place))


def sync(path: Path) -> None:
    """Wait until one file, or the entries of one folder, are on disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file aside, then put it in the place of ``path`` at once."""
    partial = partial_path(path)
    try:
        write(partial)
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def point_link(link: Path, target: Path) -> None:
    """Make ``link`` a relative link to ``target`` at once, replacing what it was."""
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == relative:
        return
    partial = partial_path(link)
    os.symlink(relative, partial)
    os.replace(partial, link)
    sync(link.parent)
