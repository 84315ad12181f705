"""Files and folders that appear whole or not at all."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from training_recipe.run_folder import partial_path, sync, sync_tree
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
        _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
