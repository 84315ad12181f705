"""Writing that is whole or absent: aside under a hidden name, onto the disk, then renamed.

An OSError on the way becomes a UserError that names what could not be written.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from transformer_spec.errors import UserError


def partial_path(path: Path) -> Path:
    """A hidden name beside ``path`` under which it is written before it is renamed."""
    return path.parent / f".{path.name}.partial-{secrets.token_hex(4)}"


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A hidden path for a file or a folder that becomes ``path`` when the block ends well.

    It is on disk before it has the name, and takes the place of a file of that name. Whatever goes
    wrong inside, nothing is left.
    """
    aside = partial_path(path)
    try:
        yield aside
        sync_tree(aside) if aside.is_dir() else sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    except OSError as error:
        raise _not_written(str(path), error) from error
    finally:
        remove(aside)


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """An empty folder that becomes ``path`` as ``written_aside`` does it."""
    with written_aside(path) as aside:
        aside.mkdir()
        yield aside


def make_parent(path: Path) -> None:
    """Make the folder that ``path`` is to lie in; where that fails, a UserError says why."""
    check_parent(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}: {error.filename}") from None


def check_parent(path: Path) -> None:
    """Raise UserError where ``path`` is to lie in what is a file, before there is work to lose."""
    for place in path.parents:
        if os.path.lexists(place) and not place.is_dir():
            raise UserError(f"cannot write {path}: {place} is a file; name a place in a folder")


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file aside, then put it in the place of ``path`` at once."""
    with written_aside(path) as aside:
        write(aside)


@contextlib.contextmanager
def all_or_nothing(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A hidden folder to write files to; they move into ``folder``, in this order, at the end.

    ``folder`` is made where it does not exist. A file that is there already is a UserError, and
    whatever goes wrong inside leaves none of the files.
    """
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        raise UserError(f"{folder} has {', '.join(taken)} already; name a folder that has not")
    aside, made, moved = partial_path(folder / "files"), not folder.exists(), []
    try:
        aside.mkdir(parents=True)
        yield aside
        sync_tree(aside)
        for name in names:
            moved.append((aside / name).rename(folder / name))
        aside.rmdir()
        sync(folder)
    except BaseException as error:
        for path in [*moved, aside]:
            remove(path)
        if made and folder.is_dir():
            folder.rmdir()
        if not isinstance(error, OSError):
            raise
        raise _not_written(f"into {folder}", error) from error


def _not_written(what: str, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(f"cannot write {what}: {reason}; nothing was left there")


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it; one that is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


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


def point_link(link: Path, target: Path) -> None:
    """Make ``link`` a relative link to ``target`` at once, replacing what it was."""
    relative = os.path.relpath(target, link.parent)
    if link.is_symlink() and os.readlink(link) == relative:
        return
    partial = partial_path(link)
    os.symlink(relative, partial)
    os.replace(partial, link)
    sync(link.parent)
