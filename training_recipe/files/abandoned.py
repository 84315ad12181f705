"""What processes that were killed left of files and folders that they wrote aside."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from transformer_spec.door import UNFINISHED

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

WRITER = re.compile(r"\.partial-(\d+)-[0-9a-f]{8}")


def remove_abandoned(path: Path) -> list[str]:
    """Remove the folders that killed processes left of ``path``, written aside; a note on each.

    What a process may still be writing stays, and the note says so.
    """
    notes, parts = [], [*path.parent.iterdir()] if path.parent.is_dir() else []
    for part in sorted(parts):
        if not part.name.startswith(f".{path.name}.partial-") or part.is_symlink():
            continue
        if _is_abandoned(part):
            shutil.rmtree(part, ignore_errors=True)
            notes.append(f"removed {part}, which a process that was killed had left")
        else:
            notes.append(f"{part} is there: a process is writing it, or was killed and left it")
    return notes


def _is_abandoned(part: Path) -> bool:
    """Whether the process that a hidden name speaks of is gone from this machine."""
    found = WRITER.search(part.name)
    if found is None or os.name == "nt" or str(part) in UNFINISHED:
        return False  # on Windows to ask for a process would end it
    number = int(found[1])
    gone = number == os.getpid() or not _is_running(number)
    return gone and part.is_dir() and _is_free(part)


def _is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _is_free(part: Path) -> bool:
    """Whether no process, of another container either, holds a folder."""
    with contextlib.suppress(OSError), held(part):
        return True
    return False


@contextlib.contextmanager
def held(path: Path) -> Iterator[int | None]:
    """Hold a folder or file while the block runs; BlockingIOError if another process holds it.

    The system frees it where a process dies. Where folders cannot be held (Windows, some network
    disks) nothing is.
    """
    if fcntl is None:
        yield None
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return  # a disk on which nothing can be held
