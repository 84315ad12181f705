"""metrics.jsonl, one line per log step and evaluation, and TensorBoard events made from it.

What depends on the clock stands below "speed"; the rest of a resumed run's file is that of a run
that was never interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training_recipe.files.writing import replace_file
from training_recipe.runs.event_file import EventFile
from training_recipe.runs.folder import RunFolder
from transformer_spec import UserError
from transformer_spec.errors import printable_name
from transformer_spec.json_text import parse_json, value_fault

Record = dict[str, Any]
NEEDED = {"kind": str, "step": int, "speed": dict}
CURVES = ("loss", "learning_rate", "gradient_norm")


class Counted:
    """The same for a process that does not write: it counts the lines that another one does."""

    def __init__(self, lines: int) -> None:
        self.lines = lines

    def write(self, record: Record) -> None:
        """Count one line."""
        self.lines += 1

    def sync(self) -> None:
        """Nothing waits for a disk."""

    def close(self) -> None:
        """Nothing is open."""


class Metrics:
    """Writes both; ``lines`` counts the lines of the file, which a checkpoint remembers."""

    def __init__(self, run: RunFolder, lines: int) -> None:
        """Keep the first ``lines`` lines, drop what a killed run wrote after its checkpoint."""
        self.path = run.metrics
        self.lines = truncate(run.metrics, lines)
        self._file = run.metrics.open("a", encoding="utf-8")
        shutil.rmtree(run.tensorboard, ignore_errors=True)
        run.tensorboard.mkdir(exist_ok=True)
        self._events = EventFile(run.tensorboard)
        for record in read_metrics(run.metrics):
            self._add_events(record)

    def write(self, record: Record) -> None:
        """Append one line and its events."""
        record = record | {"speed": record.get("speed", {}) | {"time": round(time.time(), 3)}}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self.lines += 1
        self._add_events(record)

    def _add_events(self, record: Record) -> None:
        for name, value in scalars(record):
            when = record["speed"].get("time", 0.0)
            self._events.add(name, value, record["step"], when)
        self._events.flush()

    def sync(self) -> None:
        """Wait until the lines are on disk, before a checkpoint counts them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close both."""
        self._file.close()
        self._events.close()


def truncate(path: Path, lines: int) -> int:
    """Keep the first ``lines`` lines of the file, or all where it has fewer; the number kept."""
    found = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if len(found) > lines:
        kept = b"".join(found[:lines])
        replace_file(path, lambda partial: partial.write_bytes(kept))
    return min(len(found), lines)


def read_metrics(path: Path) -> Iterator[Record]:
    """The records of metrics.jsonl; a damaged line is a UserError."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield checked(parse_json(line))
            except ValueError as error:
                raise UserError(f"{path}, line {number} is damaged: {error}") from None


def checked(record: Any) -> Record:
    """A record of which everything can be shown; a ValueError names what cannot."""
    if not isinstance(record, dict):
        raise ValueError("it is no object")
    faults = [value_fault(name, record.get(name), (kind,)) for name, kind in NEEDED.items()]
    values = {name: record[name] for name in CURVES if name in record}
    for part in ("scores", "speed"):
        held = record.get(part, {})
        faults.append(value_fault(part, held, (dict,)))
        numbers = held.items() if isinstance(held, dict) else ()
        values |= {f"{part}.{printable_name(name)}": value for name, value in numbers}
    faults += [value_fault(name, value, (float,)) for name, value in values.items()]
    found = [fault for fault in faults if fault is not None]
    if found:
        raise ValueError("; ".join(found))
    return record


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """The numbers of a record under the names that TensorBoard groups them by."""
    kind = record["kind"]
    flat = record | record.get("scores", {}) | {"speed": None, "scores": None}
    for name, value in flat.items():
        if isinstance(value, int | float) and name not in ("step", "epoch", "best"):
            yield f"{kind}/{name}", value
    if "tokens_per_second" in record.get("speed", {}):
        yield f"{kind}/tokens_per_second", record["speed"]["tokens_per_second"]
