"""Files and folders that appear whole or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from training_recipe.files.writing import partial_path, sync, sync_tree
from transformer_spec import UserError


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A hidden path beside ``path`` to write to; it is synced and renamed when the block ends.

    Whatever goes wrong inside, nothing is left; an OSError becomes a UserError that names the path.
    """
    aside = partial_path(path)
    try:
        yield aside
        sync_tree(aside) if aside.is_dir() else sync(aside)
        aside.rename(path)
        sync(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}; nothing was left there") from error
    finally:
        remove(aside)


@contextlib.contextmanager
def all_or_nothing(folder: Path, names: list[str]) -> Iterator[Path]:
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
        reason = error.strerror or str(error)
        raise UserError(f"cannot write into {folder}: {reason}; nothing was left there") from error


def remove(path: Path) -> None:
    """Remove a file, or a folder with everything in it; one that is not there is no error."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
