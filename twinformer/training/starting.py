"""The two ways into training: a new run, or an existing one continued from a checkpoint."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from training_recipe.backend import Backend, MakeBackend
from training_recipe.files.writing import check_parent
from training_recipe.options.request import ALL, INVOCATION, MODEL, Request
from training_recipe.options.settings import SETTINGS, TrainingSettings
from training_recipe.preparation import (
    Prepared,
    default_run_path,
    prepare_again,
)
from training_recipe.runs.folder import RunFolder, already_there
from training_recipe.runs.progress import PROGRESS, Progress
from training_recipe.runs.record import RunRecord
from training_recipe.searching.batches import within
from training_recipe.searching.search import Search, check_search_memory
from transformer_spec import TransformerConfig, UserError, weight_shapes
from transformer_spec.declarations import as_text
from transformer_spec.errors import Faults
from transformer_spec.memory import check_memory
from transformer_spec.positions import check_table
from twinformer.training.beginning import begin
from twinformer.training.checkpoints import (
    choose_checkpoint,
    chosen_state,
    disk_full_is_clear,
    repair_best,
    set_aside_after,
    write_checkpoint,
)
from twinformer.training.evaluation.scores import bleu
from twinformer.training.states import first_state

COPIES = 4  # weights, gradients and two moments
OTHER_BATCHES = (
    "note: the pairs are put into other batches than before, as another version of this program "
    "does; the run goes on with these, and not as it would have without the interruption"
)
OTHER_JUDGES = (
    "note: the pairs to validate or test by are not those that the run began with; scores from "
    "here on do not compare with those before"
)
UNKNOWN_BATCHES = (
    "note: this run was begun by an older version, which did not record how pairs are put into "
    "batches; if that has changed, it does not go on as it would have without the interruption"
)


@dataclasses.dataclass
class Started:
    """Everything the loop needs; ``notes`` are shown first, ``verify`` is for what is read yet."""

    run: RunFolder
    record: RunRecord
    prepared: Prepared
    backend: Backend
    progress: Progress
    notes: list[str]
    verify: bool = True


def backend_name(request: Request) -> str:
    """The backend that was asked for, or, on resuming, the one that wrote the newest checkpoint."""
    invocation = request.invocation
    if invocation.resume is None or "backend" in request.given:
        return invocation.backend
    return RunRecord.load(RunFolder.open(Path(invocation.resume)).settings).backend


def start(request: Request, name: str, make_backend: MakeBackend) -> Started:
    """A new run folder with the weights to begin with; an existing folder is a UserError.

    A model that came from elsewhere is the run's checkpoint of step 0: the run needs that folder
    no more.
    """
    settings, asked = request.settings.anchored(), request.invocation
    path = Path(asked.out or Path("runs", asked.name or ""))
    if asked.out is None and asked.name is None:
        path = default_run_path(settings, name)
    elif os.path.lexists(path):
        raise already_there(path)
    check_parent(path)
    begun = begin(settings, request.model, request.given, asked.verify)
    settings, prepared, progress = begun.settings, begun.prepared, begun.progress()
    if prepared.corpus.task == "translation":
        bleu(settings.bleu_tokenize)  # a tokenization that is not there is said before training
    check_fits(prepared, settings)
    backend = make_backend(prepared.config, settings, begun.state())
    record = RunRecord(
        settings,
        name,
        prepared.fingerprint,
        newest_checkpoint=None if begun.opened is None else progress.step,
        plan_fingerprint=prepared.plan.fingerprint,
        judged_fingerprint=prepared.judged_fingerprint,
    )

    def fill(run: RunFolder) -> None:
        begun.save(run)
        record.save(run.settings)
        if begun.opened is not None:
            write_checkpoint(run.checkpoint(progress.step), backend, progress)

    with disk_full_is_clear(RunFolder(path), "cannot make the run folder"):
        run = RunFolder.create(path, fill)
    heading = f"run {path}: backend {name}, {settings.dtype}, preset {asked.preset}"
    notes = [heading, *begun.notes, *about(prepared)]
    return Started(run, record, prepared, backend, progress, notes, asked.verify)


def check_fits(prepared: Prepared, settings: TrainingSettings) -> None:
    """Raise a UserError where the model, or the beam of the final test, is beyond all memory.

    The weights are always made here; of an accelerator's own memory nothing is known yet.
    """
    config, size = prepared.config, np.dtype(settings.weight_dtype).itemsize
    count, here = parameters(config), settings.device in ("cpu", "auto")
    what = f"a model of {count:,} parameters{', with gradients and moments,' if here else ''}"
    check_memory(count * size * (COPIES if here else 1), what, "give smaller sizes of the model")
    if "sinusoidal" in (config.encoder_positions, config.decoder_positions):
        check_table(config)
    if here:
        longest = min(config.max_length, prepared.longest_target)
        search = Search(beam=settings.beam, max_length=longest)
        rows = within(settings.batch_tokens, search.beam)(longest)
        check_search_memory(rows, longest, config, search, size)


def about(prepared: Prepared) -> list[str]:
    """What the log says of data and model."""
    return [*prepared.notes, f"model: {parameters(prepared.config):,} parameters"]


def parameters(config: TransformerConfig) -> int:
    """How many numbers the weights are."""
    return sum(math.prod(shape) for shape in weight_shapes(config).values())


def resume(request: Request, name: str, make_backend: MakeBackend) -> Started:
    """The run of ``--resume`` as it was after the chosen checkpoint."""
    run = RunFolder.open(Path(request.invocation.resume or ""))
    record = RunRecord.load(run.settings)
    settings = resumed_settings(request, record.settings, TransformerConfig.load(run.config))
    step = choose_checkpoint(run, record.newest_checkpoint, request.invocation.from_step)
    verify = request.invocation.verify
    progress = Progress() if step is None else Progress.load(run.checkpoint(step) / PROGRESS)
    if progress.step > settings.steps:
        raise UserError(f"{run.path} has done {progress.step} steps; --steps cannot be fewer")
    prepared = prepare_again(settings, run)
    if prepared.fingerprint != record.data_fingerprint:
        raise UserError(
            f"the training data of {settings.data} is not what {run.path} began with; put the data "
            "back as it was, or start a new run"
        )
    check_fits(prepared, settings)
    if step is None:
        state = first_state(prepared.config, settings)
    else:
        state = chosen_state(run, step, verify)
    backend = make_backend(prepared.config, settings, state)
    notes = _settle_folder(run, progress, request.invocation.from_step)
    plan = prepared.plan.fingerprint
    if plan != record.plan_fingerprint:
        notes.append(OTHER_BATCHES if record.plan_fingerprint else UNKNOWN_BATCHES)
    if record.judged_fingerprint not in (None, prepared.judged_fingerprint):
        notes.append(OTHER_JUDGES)
    record = dataclasses.replace(
        record,
        settings=settings,
        newest_checkpoint=step,
        plan_fingerprint=plan,
        judged_fingerprint=prepared.judged_fingerprint,
    )
    heading = f"run {run.path}: backend {name}, {settings.dtype}, after step {progress.step}"
    notes = [heading, *about(prepared), *notes]
    return Started(run, record, prepared, backend, progress, notes, verify)


def _settle_folder(run: RunFolder, progress: Progress, from_step: int | None) -> list[str]:
    """Clear away what an interruption left, once the checkpoint is known to be good."""
    leftovers = run.remove_leftovers()
    later = set_aside_after(run, progress.step) if from_step is not None else []
    repair_best(run, progress)
    notes = [f"removed {name}, left by an interrupted save" for name in leftovers]
    return notes + [f"kept a later checkpoint as {name}" for name in later]


def resumed_settings(
    request: Request, stored: TrainingSettings, config: TransformerConfig
) -> TrainingSettings:
    """The run's settings with what may change; anything else that differs is named in an error."""
    faults, changed = Faults(), {}
    before: dict[str, Any] = {**dataclasses.asdict(config), **dataclasses.asdict(stored)}
    for name in [n for n in request.given if n in SETTINGS or n in MODEL]:
        value = request.given[name]
        if SETTINGS.get(name) is not None and SETTINGS[name].resumable:
            changed[name] = value
        elif value != before[name]:
            was, wanted = as_text(before[name]), as_text(value)
            faults.add(f"{ALL[name].flag} {wanted} differs from the run's {was}")
    allowed = [d.flag for d in (*INVOCATION.values(), *SETTINGS.values()) if d.resumable]
    advice = f"what may change: --backend, {', '.join(allowed)}"
    faults.raise_if_any("a resumed run keeps its settings", advice=advice)
    given = dataclasses.replace(stored, **changed).anchored()
    # What was not given stays as it was, relative to this folder where an older version wrote it.
    return dataclasses.replace(stored, **{name: getattr(given, name) for name in changed})
