"""Large pages for large arrays, which the C library must be told before a process starts."""

from __future__ import annotations

import os
import sys

VARIABLE, WANTED = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def restart_with_huge_pages() -> None:
    """Start this command once more with GLIBC_TUNABLES set so, unless the variable is set already.

    A training step asks for hundreds of megabytes, which Linux clears page by page; XLA asks anew
    in every step. Pages of 2 MB instead of 4 KB need 1/500 of the faults. Other systems and C
    libraries do without.
    """
    if sys.platform == "linux" and VARIABLE not in os.environ and sys.executable:
        os.environ[VARIABLE] = WANTED
        os.execv(sys.executable, sys.orig_argv)
