"""Whether files of weights stay as they were while they are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transformer_spec import Faults

MOST = 10_000  # files that are looked at
AGAIN = "convert again when nothing writes there"


@dataclass(frozen=True)
class Sizes:
    """Size and time of the last change of each file; None where it is not there."""

    known: dict[Path, tuple[int, int] | None]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Sizes:
        """Those of files, and of all files below folders."""
        files = [file for path in paths for file in _below(path)][:MOST]
        return cls({file: _of_one(file) for file in files})

    def check(self) -> None:
        """Raise a UserError that names every file that has changed since."""
        faults = Faults()
        for path, before in self.known.items():
            if _of_one(path) != before:
                faults.add(f"{path} was changed or taken away", "were changed or taken away")
        faults.raise_if_any("weights did not stay as they were while they were read", advice=AGAIN)


def _of_one(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _below(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for place, _, names in os.walk(path):
        yield from (Path(place) / name for name in names)
