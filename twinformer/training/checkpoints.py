"""Checkpoints appear whole or not at all, and are read only when they are whole."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from training_recipe.arrays import changed
from training_recipe.backend import Backend, Checkpoint
from training_recipe.distributed.processes import ALONE, Processes
from training_recipe.files.json_files import read_json, write_json
from training_recipe.files.writing import folder_aside, point_link
from training_recipe.options.invocation import typed, words
from training_recipe.options.settings import TrainingSettings
from training_recipe.runs.averages import averaged_steps
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.integrity import damage, seal
from training_recipe.runs.progress import PROGRESS, Progress
from transformer_spec import UserError
from twinformer.training.states import read_state, save_state

T = TypeVar("T")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Libraries that write for a backend wrap the system's error in their own; its words remain.
DISK_FULL_WORDS = re.compile(
    r"no space left|disk quota exceeded|file too large|os error (28|27|122)\b", re.IGNORECASE
)


class DiskFullError(UserError):
    """Something could not be written because the disk, or the user's share of it, is full."""


def save_checkpoint(
    run: RunFolder,
    backend: Backend,
    progress: Progress,
    processes: Processes = ALONE.processes,
) -> Path:
    """Write the checkpoint of ``progress.step``; a full disk leaves the older ones as they were.

    Where the step has a checkpoint already, its weights are these: only its progress is replaced.
    All processes call it.
    """
    folder = run.checkpoint(progress.step)
    with disk_full_is_clear(run, f"cannot save {folder.name}"):
        if processes.broadcast(folder.exists()):
            with processes.together():
                if processes.first:
                    replace_progress(folder, progress)
        else:
            write_checkpoint(folder, backend, progress, processes)
        best = progress.best_step
        with processes.together():
            if processes.first and best is not None and run.checkpoint(best).exists():
                point_link(run.best, run.checkpoint(best))
    return folder


def replace_progress(folder: Path, progress: Progress) -> None:
    """Write what is known now into a checkpoint whose files stay."""
    written = read_json(folder / PROGRESS)
    kept = {key: written[key] for key in ("backend", "files") if key in written}
    write_json(folder / PROGRESS, progress.to_dict() | kept)


def write_checkpoint(
    folder: Path, backend: Backend, progress: Progress, processes: Processes = ALONE.processes
) -> None:
    """Write a new checkpoint folder, whole or not at all; all processes call it."""
    progress.backend = backend.name
    with processes.by_the_first(folder_aside(folder)) as partial:
        save_state(backend, partial, processes)
        if processes.first:
            seal(partial, progress)


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
        raise DiskFullError(f"{what}: the disk is full ({error}); {_going_on(run)}") from None


def _going_on(run: RunFolder) -> str:
    """What there is of a run when the disk is full, and what to do."""
    if not run.path.is_dir():
        return "nothing of the run is there; make room, then start it again"
    steps = run.steps()
    kept = f"{run.checkpoint(steps[-1]).name} is whole" if steps else "no checkpoint exists yet"
    return f"{kept}; make room, then go on with {words('train')} --resume {typed(run.path)}"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, a library's own included, means that nothing more can be written."""
    number = getattr(error, "errno", None)
    return number in DISK_FULL or bool(DISK_FULL_WORDS.search(str(error)))


def choose_checkpoint(run: RunFolder, recorded: int | None, from_step: int | None) -> int | None:
    """The step to go on from: ``from_step``, or the newest; None where nothing was saved yet.

    ``recorded`` is the newest checkpoint that settings.json knows of. A damaged or missing choice
    is a UserError that names the file and the complete checkpoints that could be taken instead.
    What is in the files is looked at when the state is read.
    """
    steps = run.steps()
    saved = steps if recorded is None else [*steps, recorded]
    if not saved and not from_step:
        return None
    if from_step is None and (emptied := run.emptied()) is not None:
        raise emptied
    chosen = max(saved) if from_step is None else from_step
    fault = damage(run.checkpoint(chosen), contents=False)
    if fault is not None:
        raise UserError(f"{fault}; {_alternatives(run, chosen)}")
    return chosen


def chosen_state(run: RunFolder, chosen: int, verify: bool = True) -> Checkpoint:
    """The state of a checkpoint; where it cannot be read, a UserError names complete ones.

    That may be later, when a part of it is read.
    """

    def told(read: Callable[[], T]) -> T:
        try:
            return read()
        except UserError as error:
            raise UserError(f"{error}; {_alternatives(run, chosen)}", error.faults) from None

    state = told(lambda: read_state(run.checkpoint(chosen), verify))
    return state.changed(lambda _, arrays: changed(arrays, told))


def _alternatives(run: RunFolder, chosen: int) -> str:
    others = [step for step in run.steps() if step != chosen]
    whole = [step for step in others if damage(run.checkpoint(step)) is None]
    if not whole:
        return f"{run.path} has no other complete checkpoint: put it back, or train anew"
    listed = ", ".join(run.checkpoint(step).name for step in whole)
    going_on = f"--resume {typed(run.path)} --from-step {whole[-1]}"
    return f"complete: {listed}; go on from there with {going_on}"


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


def forget_lost_best(run: RunFolder, progress: Progress, processes: Processes) -> list[str]:
    """Forget a best checkpoint that was removed since, as a later one was better; a note on it."""
    best = progress.best_step
    if best is None or processes.broadcast(run.checkpoint(best).exists()):
        return []
    progress.forget_best()
    name = run.checkpoint(best).name
    return [f"note: {name}, the best until then, is there no more; the next validation is the best"]


def prune(run: RunFolder, settings: TrainingSettings, best_step: int | None) -> None:
    """Remove all but the newest checkpoints, the best, and those that are to be averaged."""
    steps = run.steps()
    kept = {best_step, *steps[-settings.keep :]}
    kept.update(averaged_steps(steps, settings.average, settings.save_every))
    for step in steps:
        if step not in kept:
            shutil.rmtree(run.checkpoint(step))
