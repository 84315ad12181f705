"""Libraries that print pages about what they also raise as an error."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from transformer_spec.door import is_command, speaking_to

STDERR = 2


@contextlib.contextmanager
def silent_writers() -> Iterator[None]:
    """A block in which nothing reaches stderr, from threads and compiled code neither.

    Where an error ends it in a command, nothing but the command's own message does afterwards:
    writers go on for a while, and each of them reports to an event loop that has ended.
    """
    _flush()
    try:
        kept = os.dup(STDERR)
    except OSError:  # it is closed
        yield
        return
    before = speaking_to(kept)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), STDERR)
    try:
        yield
    except BaseException:
        if not is_command():
            _restore(kept, before)
        raise
    _restore(kept, before)


def _restore(kept: int, before: int) -> None:
    _flush()
    os.dup2(kept, STDERR)
    os.close(kept)
    speaking_to(before)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
