"""How many cores of the processor this process may use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# What a control group may use, as files with its share and with the whole, of version 2 and 1.
QUOTAS = (
    ("sys/fs/cgroup/cpu.max",),
    ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def cores(system: Path = Path("/")) -> int:
    """Cores that the system runs this process on, and no more than its container pays for.

    ``system`` is its root folder.
    """
    asked = hasattr(os, "sched_getaffinity")  # neither on macOS nor on Windows
    count = len(os.sched_getaffinity(0)) if asked else os.cpu_count() or 1
    for files in QUOTAS:
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max": no limit
            quota, period = map(int, " ".join((system / f).read_text() for f in files).split())
            if 0 < quota < count * period:
                count = -(-quota // period)
    return count
