"""Which checkpoints a mean of weights was made of: average.json beside it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_recipe.files.fingerprints import fingerprints
from training_recipe.files.json_files import read_json, write_json
from training_recipe.runs.progress import PROGRESS
from transformer_spec.errors import UserError

ORIGIN = "average.json"
KEPT = ("step", "backend", "files")


def averaged_steps(steps: list[int], count: int, every: int) -> list[int]:
    """The last ``count`` of ascending steps whose checkpoints are averaged, or all there are.

    They are the multiples of ``every`` and the newest: those in between are there because they were
    the best so far, or because the run was interrupted. That of step 0 is of no training.
    """
    regular = [step for step in steps if step and step % every == 0 or step == steps[-1]]
    return regular[-count:] if count else []


def record_mean(folders: list[Path], destination: Path) -> None:
    """Write average.json into a folder that holds the mean of checkpoint folders: of which."""
    origins = [{"checkpoint": str(folder)} | _origin(folder) for folder in folders]
    write_json(destination / ORIGIN, {"mean_of": origins, "files": _files(destination)})


def is_mean_of(folder: Path, parts: list[Path]) -> bool:
    """Whether a folder holds the mean of these very checkpoints, undamaged."""
    if not (folder / ORIGIN).is_file():
        return False
    try:
        written = read_json(folder / ORIGIN)
    except UserError:
        return False
    origins = [_origin(part) for part in parts]
    known = all(origin["files"] for origin in origins)
    return known and _kept(written) == origins and written.get("files") == _files(folder)


def _kept(written: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What average.json says of each checkpoint, as ``_origin`` does; None where it is damaged."""
    means = written.get("mean_of")
    if not isinstance(means, list) or not all(isinstance(part, dict) for part in means):
        return None
    return [{name: part.get(name) for name in KEPT} for part in means]


def _origin(folder: Path) -> dict[str, Any]:
    progress = read_json(folder / PROGRESS)
    return {name: progress.get(name) for name in KEPT}


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    return {name: found for name, found in fingerprints(folder).items() if name != ORIGIN}
