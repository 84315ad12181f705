"""How much memory there is, and whether what is asked for fits into it."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from transformer_spec.errors import UserError

UNKNOWN = 8 * 2**30
# Folder, limit, use and cached files of a control group, of version 2 and 1.
CONTAINERS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "sys/fs/cgroup/memory",
        *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
)


def available(system: Path = Path("/")) -> int:
    """Bytes that the system could still give, by its own account, and its container's limit.

    Where no system says anything, as on Windows, it is ``UNKNOWN``. ``system`` is its root folder.
    """
    found = [free_in_container(system / place, *names) for place, *names in CONTAINERS]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (system / "proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(min(1024 * int(line.split()[1]), *found))
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no sysconf on Windows
        return int(min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *found))
    return int(min(UNKNOWN, *found))


def free_in_container(folder: Path, limit: str, used: str, cache: str) -> float:
    """Bytes left to a control group, what it caches of files counted as free; else infinite."""
    with contextlib.suppress(OSError, ValueError):
        most = int((folder / limit).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, most - int((folder / used).read_text()) + int(stat.get(cache, 0)))
    return math.inf


def resident() -> int:
    """Bytes that this process has in memory now; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])
    return 0


def shown(size: int) -> str:
    """Bytes in GiB or MiB."""
    if size >= 2**40:
        return f"{size / 2**40:,.1f} TiB"
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def check_memory(needed: int, what: str, advice: str) -> None:
    """Raise a UserError where ``what`` takes more bytes than there are for this process.

    What it holds already counts as free: some of that may be what it has freed and kept.
    """
    free = available() + resident()
    if needed > free:
        raise UserError(
            f"{what} needs about {shown(needed)} of memory, and {shown(free)} are free; {advice}"
        )
