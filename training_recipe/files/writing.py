"""Writing that is whole or absent: aside under a hidden name, onto the disk, then renamed.

An OSError on the way becomes a UserError that names what could not be written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from training_recipe.files.abandoned import held
from transformer_spec.door import UNFINISHED
from transformer_spec.errors import UserError, system_fault

LONGEST_NAME = 255
LOOKS, QUIET, PAUSE = 40, 5, 0.05  # the last in seconds
HIDDEN = ".partial-"
MEANT: dict[str, Path] = {}  # hidden name -> what it is to be, while it is written
LONGEST_STEM = 200  # bytes, of which a hidden name has more


def partial_path(path: Path) -> Path:
    """A hidden name beside ``path`` under which it is written before it is renamed.

    It says which process writes it.
    """
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    return path.parent / f".{_stem(path)}{HIDDEN}{mark}"


def _stem(path: Path) -> str:
    """A name, cut where it would leave no room for what a hidden one has more."""
    return os.fsdecode(os.fsencode(path.name)[:LONGEST_STEM])


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A hidden path for a file or a folder that becomes ``path`` when the block ends well.

    It is on disk before it has the name, and takes the place of a file of that name. Whatever goes
    wrong inside, nothing is left.
    """
    aside = partial_path(path)
    UNFINISHED[str(aside)], MEANT[str(aside)] = lambda: remove(aside), path
    try:
        yield aside
        sync_tree(aside) if aside.is_dir() else sync(aside)
        _rename(aside, path)
        sync(path.parent)
    except OSError as error:
        raise _not_written(_known(path), error) from error
    finally:
        _remove_for_good(aside)
        for names in (UNFINISHED, MEANT):
            names.pop(str(aside), None)


def _rename(aside: Path, path: Path) -> None:
    """Give a file or folder its name; a folder that got it meanwhile stays as it is."""
    try:
        os.replace(aside, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise UserError(
            f"cannot write {path}: another process wrote it meanwhile, and it stays as that left "
            "it; name another place"
        ) from error


def _remove_for_good(folder: Path) -> None:
    """Remove a folder until it stays away.

    A library's threads may write into it for a moment longer than its call that failed.
    """
    away = 0 if folder.is_dir() else QUIET
    for _ in range(LOOKS):
        if away == QUIET:
            break
        remove(folder)
        time.sleep(PAUSE)
        away = 0 if folder.is_dir() else away + 1
    remove(folder)


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """An empty folder that becomes ``path`` as ``written_aside`` does it."""
    with written_aside(path) as aside:
        aside.mkdir()
        with held(aside):
            yield aside


def make_parent(path: Path) -> None:
    """Make the folder that ``path`` is to lie in; where that fails, a UserError says why."""
    check_parent(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {system_fault(error)}") from None


def check_folder(folder: Path) -> None:
    """Raise UserError where no file can be written into a folder, which may not be there yet."""
    check_parent(folder / "any", named=folder)


def check_parent(path: Path, named: Path | None = None) -> None:
    """Raise UserError where ``path`` cannot be written, before there is work to lose.

    Its name may be too long, what it is to lie in may be a file, or a folder not to be written to.
    ``named`` is what the user has given in its place.
    """
    named = named or path
    try:
        os.lstat(named)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise UserError(f"cannot write {system_fault(error)}") from None
    for place in path.parents:
        if os.path.lexists(place) and not place.is_dir():
            if place == named:
                raise UserError(f"cannot write into {named}: it is a file; name a folder")
            raise UserError(f"cannot write {named}: {place} is a file; name a place in a folder")
    place = next(place for place in path.absolute().parents if place.is_dir())
    _check_lengths(path, place)
    if not os.access(place, os.W_OK | os.X_OK):
        number = errno.EROFS if _is_read_only(place) else errno.EACCES
        refused = OSError(number, os.strerror(number), str(place))
        raise UserError(f"cannot write {named}: {system_fault(refused)}")


def _check_lengths(path: Path, place: Path) -> None:
    """No part of a path below an existing ``place`` may be longer than its disk has names."""
    longest = os.pathconf(place, "PC_NAME_MAX") if hasattr(os, "pathconf") else LONGEST_NAME
    for part in path.absolute().relative_to(place).parts:
        if len(os.fsencode(part)) > longest:
            refused = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
            raise UserError(f"cannot write {system_fault(refused)}")


def _is_read_only(place: Path) -> bool:
    return hasattr(os, "statvfs") and bool(os.statvfs(place).f_flag & os.ST_RDONLY)


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
    UNFINISHED[str(aside)], MEANT[str(aside)] = lambda: remove(aside), folder
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
        raise _not_written(f"into {_known(folder)}", error) from error
    finally:
        for written in (UNFINISHED, MEANT):
            written.pop(str(aside), None)


def _known(path: Path) -> str:
    """A path as people know it: what is written into a hidden folder has that one's name to be."""
    for place in reversed((path, *path.parents)):
        if str(place) in MEANT:
            meant = MEANT[str(place)]
            return str(meant) if place == path else f"{meant} ({path.name})"
    return path.name if HIDDEN in str(path.parent) else str(path)


def _not_written(what: str, error: OSError) -> UserError:
    """``error`` without the hidden names that nobody knows."""
    names = [name for name in (error.filename, error.filename2) if name is not None]
    own = any(isinstance(name, str) and HIDDEN in name for name in names)
    told = OSError(error.errno, error.strerror) if own and error.strerror else error
    return UserError(f"cannot write {what}: {system_fault(told)}; nothing was left there")


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it; one that is not there is no error."""
    if os.path.isdir(path) and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
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
