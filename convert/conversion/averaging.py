"""The mean of a run's last checkpoints as a model of its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convert.checkpoints.averaging import write_average
from convert.conversion.places import check_destination
from convert.conversion.side_files.made_files import carry
from training_recipe.files.abandoned import remove_abandoned
from training_recipe.files.writing import folder_aside, make_parent
from training_recipe.runs.averages import averaged_steps
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.record import RunRecord
from transformer_spec import TransformerConfig, UserError

LEAST, MOST = 2, 10  # checkpoints of a mean where nobody says how many
MORE = "--keep and --average keep more"


@dataclass(frozen=True)
class AverageRequest:
    """A run of either backend, a new folder, and how many checkpoints: the newest, and before it
    those that were saved at regular intervals, at least 2. None: all there are, at most 10.
    """

    run: Path
    destination: Path
    last: int | None = None


@dataclass(frozen=True)
class Average:
    """The folder that was written, the steps of the checkpoints that it is the mean of, and notes
    on what was found or left out.
    """

    folder: Path
    steps: list[int]
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The notes, and a line that says what was written."""
        listed = ", ".join(map(str, self.steps))
        count = f"{len(self.steps)} checkpoints (steps {listed})"
        return "\n".join([*self.notes, f"wrote the mean of {count} to {self.folder}"])

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return dataclasses.asdict(self) | {"folder": str(self.folder)}


def average(request: AverageRequest) -> Average:
    """Write the mean of the weights; nothing of the run is changed.

    Sums are in float64, and one weight is in memory at a time. What is no run, has fewer
    checkpoints than asked for, or a destination that is there is a UserError.
    """
    run, destination = RunFolder.open(Path(request.run)), Path(request.destination)
    check_destination(run.path, destination)
    config, steps = TransformerConfig.load(run.config), last_steps(run, request.last)
    make_parent(destination)
    left = remove_abandoned(destination)
    with folder_aside(destination) as folder:
        write_average([run.checkpoint(step) for step in steps], config, folder)
        config.save(folder / run.config.name)
        left += carry(run.path, folder, config)
    return Average(destination, steps, left)


def last_steps(run: RunFolder, count: int | None) -> list[int]:
    """The steps of the checkpoints to average; a UserError where there are fewer than asked for."""
    every = RunRecord.load(run.settings).settings.save_every
    saved = run.steps()
    wanted = LEAST if count is None else count
    steps = averaged_steps(saved, MOST if count is None else max(count, LEAST), every)
    if len(steps) >= wanted >= LEAST:
        return steps
    asked = "" if count is None else f"--last {count}: "
    there = averaged_steps(saved, len(saved), every)
    advice = f"a mean is of at least {LEAST}"
    if count is not None and len(there) >= LEAST:
        advice += " and no more than these"
    advice += f"; {MORE}; to use one alone, give {run.path}, its best"
    listed = f"{len(there)} (steps {_listed(there)})"
    left = [step for step in saved if step and step not in there]
    why = f", and not {_listed(left)}, saved between multiples of --save-every {every}" * bool(left)
    raise UserError(f"{asked}checkpoints of {run.path} to average: {listed}{why}; {advice}")


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"
