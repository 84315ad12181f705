"""What the C library does with memory that is freed, which every training step asks for again.

glibc gives large blocks back to the kernel, which clears every page anew for the next step: a tenth
of a step in JAX and a thirtieth in PyTorch (docs/log.md). Other C libraries are left alone.
"""

import ctypes
import platform

# mallopt(3): M_ARENA_MAX 1, M_MMAP_MAX 0, M_TRIM_THRESHOLD as high as can be.
KEPT = ((-8, 1), (-4, 0), (-1, 2**31 - 1))


def keep_freed_memory() -> None:
    """Have what is freed kept for whoever asks next, in this process, from now on.

    To be called before a framework starts its threads: memory of a thread's own is given back.
    """
    if library := _glibc():
        for option, value in KEPT:
            library.mallopt(option, value)


def give_back_freed_memory() -> None:
    """Return free pages to the kernel."""
    if library := _glibc():
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
