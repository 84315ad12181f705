"""Memory that is freed is used again."""

from __future__ import annotations

import contextlib
import ctypes

# Parameters of glibc's mallopt (malloc.h) and what they are set to.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
KEPT_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have this process use freed memory again, instead of the system clear new pages each time.

    A training step frees and asks for hundreds of megabytes. Call it before a framework is
    imported. False where the C library has no such settings.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        wanted = (ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, KEPT_BYTES)
        return all([mallopt(parameter, value) == 1 for parameter, value in wanted])
    return False
