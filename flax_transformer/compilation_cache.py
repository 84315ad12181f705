"""Compiled programs kept on disk, so that the next process need not compile them again.

They lie in ``jax/MACHINE`` of the user's cache folder for twinformer, on Linux
``$XDG_CACHE_HOME/twinformer`` or ``~/.cache/twinformer``. JAX finds them by program, versions,
flags and device. Its own settings go first: ``JAX_COMPILATION_CACHE_DIR`` is another folder and
``JAX_ENABLE_COMPILATION_CACHE=false`` keeps nothing.
"""

import contextlib
import hashlib
import os
import platform
import stat
import time
import warnings
from pathlib import Path

import jax

FOLDER = "jax"
ENTRIES = "*/*-cache"
LEAST_SECONDS = 0.3  # of compilation, for a program to be kept
MOST_DAYS, MOST_BYTES = 30, 1 << 30
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def keep_compiled_programs() -> None:
    """Let JAX keep what it compiles for the user, unless JAX was told otherwise.

    A folder that cannot be written, or that others may write (what lies in it is executed), is
    left alone: programs are then compiled in every process.
    """
    settings = jax.config.values
    chosen = settings["jax_compilation_cache_dir"] is not None
    if chosen or not settings["jax_enable_compilation_cache"]:
        return
    folder = cache_folder()
    if not is_own(folder):
        return
    remove_old(folder.parent)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    # An entry that another process has half written is compiled again, which is no fault.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")


def cache_folder() -> Path:
    """Where this machine's programs lie; homes are shared by machines of several kinds."""
    from platformdirs import user_cache_path

    kind = hashlib.sha256(instructions().encode()).hexdigest()[:8]
    return user_cache_path("twinformer") / FOLDER / f"{platform.machine()}-{kind}"


def instructions() -> str:
    """What the processor can do, where Linux says so, else its name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n"):
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()


def is_own(folder: Path) -> bool:
    """Whether a folder can be made or is there, is the user's, and nobody else may write it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return False
    mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    closed = os.name == "nt" or not status.st_mode & OTHERS_MAY_WRITE
    return mine and closed and os.access(folder, os.W_OK | os.X_OK)


def remove_old(folder: Path) -> None:
    """Remove entries older than a month, and the oldest of those that take too much room.

    ``folder`` holds those of all machines, and of this one before its kernel was renewed. A damaged
    entry, which JAX never writes again, thus goes too.
    """
    oldest, room, entries = time.time() - MOST_DAYS * 24 * 3600, MOST_BYTES, []
    for path in folder.glob(ENTRIES):
        with contextlib.suppress(OSError):  # another process cleans too
            entries.append((path.stat(), path))
    for status, path in sorted(entries, key=lambda entry: -entry[0].st_mtime):
        room -= status.st_size
        if status.st_mtime < oldest or room < 0:
            with contextlib.suppress(OSError):
                path.unlink()
