"""The account of a conversion's files: what becomes of each, carried out and told."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convert.files.listing import Found
from transformer_spec import Faults
from transformer_spec.errors import printable_name, system_fault

CARRIED, REWRITTEN, LEFT_OUT = "carried", "rewritten", "left out"
CHANGED = "were changed or taken away meanwhile"
AGAIN = "convert again when nothing writes there"


@dataclass(frozen=True)
class Entry:
    """What becomes of one file of a source: ``to`` is its place in the new folder."""

    found: Found
    what: str
    to: str | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        said = {"what": self.what, "to": self.to, "sha256": self.found.sha256}
        said |= {"reason": self.reason}
        return {key: value for key, value in said.items() if value}

    @property
    def text(self) -> str:
        """One line, for people."""
        name = printable_name(self.found.name)
        to = f" -> {printable_name(self.to)}" if self.to else ""
        return f"{name}{to}  {self.what}{f' ({self.reason})' if self.reason else ''}"


@dataclass(frozen=True)
class FilesPlan:
    """Every file of a source, and the files that are made of some: place -> what writes it.

    ``made_from`` says of which files of the source those are made; ``notes`` are for the user.
    """

    entries: list[Entry] = field(default_factory=list)
    made: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    made_from: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """How many were carried, rewritten and left out."""
        counted = Counter(entry.what for entry in self.entries)
        return {what: counted[what] for what in (CARRIED, REWRITTEN, LEFT_OUT) if counted[what]}

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Name in the source -> what became of it; what was made has ``from``."""
        told = {entry.found.name: entry.to_json() for entry in self.entries}
        for place, source in self.made_from.items():
            told.setdefault(place, {"what": REWRITTEN, "to": place, "from": source})
        return told

    @property
    def lines(self) -> list[str]:
        """The account in text: a line for each file."""
        made = [f"{source} -> {place}  made" for place, source in self.made_from.items()]
        return [*(entry.text for entry in self.entries), *made]

    def write(self, folder: Path) -> None:
        """Put every file into a new folder; one that is not what was looked at is a UserError."""
        faults = Faults()
        for entry in (entry for entry in self.entries if entry.what == CARRIED and entry.to):
            fault = _copy(entry.found, folder / str(entry.to))
            if fault is not None:
                faults.add(fault, CHANGED)
        faults.raise_if_any("files of the source did not stay as they were", advice=AGAIN)
        for place, write in self.made.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            write(folder / place)


def _copy(found: Found, place: Path) -> str | None:
    """Copy the bytes that were looked at; what is wrong where they are not there any more."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        source = found.path.open("rb")
    except OSError as error:
        return system_fault(error)
    with source, place.open("xb") as target:  # nothing that is written takes another's place
        shutil.copyfileobj(source, target)
    with place.open("rb") as written:
        same = hashlib.file_digest(written, "sha256").hexdigest() == found.sha256
    return None if same else f"{found.path} is not what it was when it was looked at"


def told_of_faults(entries: Iterable[Entry]) -> list[str]:
    """A warning on each file that was to be carried and cannot be."""
    return [
        f"warning: {printable_name(entry.found.name)} is left out: {entry.found.fault}"
        for entry in entries
        if entry.what == LEFT_OUT and entry.found.fault
    ]
