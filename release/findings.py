"""What a check says: its faults, none where it passed, and one line of what was looked at."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_SHOWN = 8


@dataclass(frozen=True)
class Finding:
    """``faults``: a line each; ``said``: what was looked at; ``listed``: a table to print below."""

    faults: Sequence[str] = ()
    said: str = ""
    listed: Sequence[str] = ()


@dataclass(frozen=True)
class Row:
    """A check that was run, and how long it took."""

    name: str
    finding: Finding
    seconds: float

    @property
    def passed(self) -> bool:
        return not self.finding.faults

    def lines(self, width: int) -> list[str]:
        """The row of the table, and its faults below it."""
        verdict, faults = "PASS" if self.passed else "FAIL", self.finding.faults
        first = f"{self.name:<{width}}  {verdict}  {self.seconds:5.0f} s  {self.finding.said}"
        shown = [f"    {fault}" for fault in faults[:MOST_SHOWN]]
        if len(faults) > MOST_SHOWN:
            shown.append(f"    and {len(faults) - MOST_SHOWN} more")
        return [first.rstrip(), *shown]


def judge(name: str, check: Callable[[], Finding]) -> Row:
    """Run a check; what it raises is its fault."""
    began = time.monotonic()
    try:
        finding = check()
    except Exception as error:
        finding = Finding([f"{type(error).__name__}: {error}"], "it broke off")
    return Row(name, finding, time.monotonic() - began)


class CommandFailed(Exception):
    """A program that the check needs ended with another status than 0."""


def output_of(*words: str | Path, folder: Path | None = None, **environment: str) -> str:
    """What a program prints; its last lines are the error where it fails.

    ``environment`` is the whole of it where any is given.
    """
    done = subprocess.run(
        list(map(str, words)), cwd=folder, env=environment or None, capture_output=True, text=True
    )
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise CommandFailed(f"{' '.join(map(str, words))[:200]}: {done.returncode}\n{last}")
    return done.stdout
