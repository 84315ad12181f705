"""One process at a time trains a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from training_recipe.files.abandoned import held
from training_recipe.runs.folder import RunFolder
from transformer_spec import UserError


@contextlib.contextmanager
def locked(run: RunFolder) -> Iterator[None]:
    """Hold the run folder while the block runs; a UserError if another process holds it.

    The system frees the lock of a process that dies. Where folders cannot be locked (Windows, some
    network disks) nothing is held.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(run.path))
        except BlockingIOError:
            raise UserError(f"{run.path} is trained by another process; wait or stop it") from None
        yield
