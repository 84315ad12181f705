"""One process at a time trains a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from training_recipe.runs.folder import RunFolder
from transformer_spec import UserError


@contextlib.contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Hold the run folder while the block runs; a UserError if another process holds it.

    The system frees the lock of a process that dies. Where folders cannot be locked (Windows, some
    network disks) nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(run.path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"{run.path} is trained by another process; wait or stop it") from None
    except OSError:
        pass
    try:
        yield
    finally:
        os.close(descriptor)
