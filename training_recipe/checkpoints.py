"""Checkpoints appear whole or not at all, and are read only when they are whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training_recipe.backend import Backend
from training_recipe.progress import Progress
from training_recipe.run_folder import (
    RunFolder,
    json_text,
    point_link,
    read_json,
    write_json,
    written_aside,
)
from training_recipe.settings import TrainingSettings
from transformer_spec import UserError

PROGRESS = "progress.json"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries that write for a backend wrap the system's error in their own; its words remain.
DISK_FULL_WORDS = re.compile(
    r"no space left|disk quota exceeded|file too large|os error (28|27|122)\b", re.IGNORECASE
)


class DiskFullError(UserError):
    """Something could not be written because the disk, or the user's share of it, is full."""


def save_checkpoint(run: RunFolder, backend: Backend, progress: Progress) -> Path:
    """Write the checkpoint of ``progress.step``; a full disk leaves the older ones as they were.

    Where the step has a checkpoint already, its weights are these: only its progress is replaced.
    """
    folder = run.checkpoint(progress.step)
    with disk_full_is_clear(run, f"cannot save {folder.name}"):
        if folder.exists():
            written = read_json(folder / PROGRESS)
            kept = {key: written[key] for key in ("backend", "files") if key in written}
            write_json(folder / PROGRESS, progress.to_dict() | kept)
        else:
            progress.backend = backend.name
            with written_aside(folder) as partial:
                backend.save(partial)
                seal(partial, progress)
        if progress.best_step is not None and run.checkpoint(progress.best_step).exists():
            point_link(run.best, run.checkpoint(progress.best_step))
    return folder


def seal(folder: Path, progress: Progress) -> None:
    """Write progress.json, with the fingerprint of every other file of the checkpoint."""
    content = progress.to_dict() | {"files": fingerprints(folder)}
    (folder / PROGRESS).write_text(json_text(content), encoding="utf-8")


@contextlib.contextmanager
def disk_full_is_clear(run: RunFolder, what: str) -> Iterator[None]:
    """Turn a full disk inside the block into one DiskFullError that says how to go on."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        steps = run.steps()
        kept = f"{run.checkpoint(steps[-1]).name} is whole" if steps else "no checkpoint exists yet"
        raise DiskFullError(
            f"{what}: the disk is full ({error}); {kept}; make room, then go on with "
            f"python train.py --resume {run.path}"
        ) from None


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, a library's own included, means that nothing more can be written."""
    number = getattr(error, "errno", None)
    return number in DISK_FULL or bool(DISK_FULL_WORDS.search(str(error)))


def fingerprints(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below ``folder`` but progress.json, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != PROGRESS)
    return {path.relative_to(folder).as_posix(): _fingerprint(path) for path in files}


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, naming the file, or None if it is whole."""
    if not folder.is_dir():
        return f"{folder} does not exist"
    try:
        Progress.load(folder / PROGRESS)
        files = read_json(folder / PROGRESS).get("files", {})
    except UserError as error:
        return str(error)
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != expected["bytes"]:
            size = path.stat().st_size
            return f"{path} is truncated: it has {size} bytes, not {expected['bytes']}"
        if _fingerprint(path) != expected:
            return f"{path} is damaged: its content is not what was saved"
    return None


def choose_checkpoint(run: RunFolder, recorded: int | None, from_step: int | None) -> int | None:
    """The step to go on from: ``from_step``, or the newest; None where nothing was saved yet.

    ``recorded`` is the newest checkpoint that settings.json knows of. A damaged or missing choice
    is a UserError that names the file and the complete checkpoints that could be taken instead.
    """
    steps = run.steps()
    saved = steps if recorded is None else [*steps, recorded]
    if not saved and not from_step:
        return None
    chosen = max(saved) if from_step is None else from_step
    fault = damage(run.checkpoint(chosen))
    if fault is not None:
        raise UserError(f"{fault}; {_alternatives(run, chosen)}")
    return chosen


def _alternatives(run: RunFolder, chosen: int) -> str:
    others = [step for step in run.steps() if step != chosen]
    whole = [step for step in others if damage(run.checkpoint(step)) is None]
    if not whole:
        return f"{run.path} has no other complete checkpoint"
    listed = ", ".join(run.checkpoint(step).name for step in whole)
    return f"complete: {listed}; go on from there with --resume {run.path} --from-step {whole[-1]}"


def set_aside_after(run: RunFolder, step: int) -> list[str]:
    """Rename the checkpoints after ``step``, which is gone back to, so that they stay readable."""
    names = []
    for later in [s for s in run.steps() if s > step]:
        folder = run.checkpoint(later)
        place = folder.with_name(f"set_aside_{folder.name}")
        count = 1
        while place.exists():
            count += 1
            place = folder.with_name(f"set_aside_{folder.name}_{count}")
        folder.rename(place)
        names.append(place.name)
    return names


def repair_best(run: RunFolder, progress: Progress) -> None:
    """Make the link say what ``progress`` says, whatever moment a run was killed at."""
    best = progress.best_step
    if best is not None and run.checkpoint(best).exists():
        point_link(run.best, run.checkpoint(best))
    elif run.best.is_symlink():
        run.best.unlink()


def prune(run: RunFolder, settings: TrainingSettings, best_step: int | None) -> None:
    """Remove all but the newest checkpoints, the best, and those that are to be averaged."""
    steps = run.steps()
    kept = {best_step, *steps[-settings.keep :]}
    kept.update(averaged_steps(steps, settings.average, settings.save_every))
    for step in steps:
        if step not in kept:
            shutil.rmtree(run.checkpoint(step))


def averaged_steps(steps: list[int], count: int, every: int) -> list[int]:
    """The last ``count`` of ascending steps whose checkpoints are averaged, or all there are.

    They are the multiples of ``every`` and the newest: those in between are there because they were
    the best so far, or because the run was interrupted.
    """
    regular = [step for step in steps if step % every == 0 or step == steps[-1]]
    return regular[-count:] if count else []
