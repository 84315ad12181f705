"""The two ways into training: a new run, or an existing one continued from a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convert.conversion.opening import open_model
from training_recipe.backend import Backend, MakeBackend
from training_recipe.batching.encoded import MOST, unknown_sides
from training_recipe.distributed.processes import ALONE, World
from training_recipe.files.abandoned import remove_abandoned
from training_recipe.files.writing import check_parent
from training_recipe.options.request import ALL, INVOCATION, MODEL, Request, preset_values
from training_recipe.options.settings import SETTINGS, TrainingSettings
from training_recipe.preparation import (
    Prepared,
    default_run_path,
    prepare_again,
    prepare_from,
)
from training_recipe.runs.folder import RunFolder, already_there
from training_recipe.runs.progress import PROGRESS, Progress
from training_recipe.runs.record import RunRecord
from training_recipe.searching.batches import within
from training_recipe.searching.published import load_search
from training_recipe.searching.search import Search, check_search_memory
from training_recipe.text.vocabulary import load_vocabulary
from transformer_spec import TransformerConfig, UserError, weight_shapes
from transformer_spec.declarations import as_text
from transformer_spec.errors import Faults
from transformer_spec.memory import check_memory
from transformer_spec.positions import check_table
from twinformer.training.agreement import (
    about_devices,
    agree_on_data,
    agree_on_weights,
    check_rows,
    check_seen,
    check_shared,
    shared_name,
)
from twinformer.training.beginning import Beginning, begin
from twinformer.training.checkpoints import (
    choose_checkpoint,
    chosen_state,
    disk_full_is_clear,
    forget_lost_best,
    repair_best,
    set_aside_after,
    write_checkpoint,
)
from twinformer.training.evaluation.scores import bleu
from twinformer.training.states import first_state

JUDGING = ("bleu_tokenize", "valid_examples")  # of what may change on resuming
COPIES = 4  # weights, gradients and two moments
OTHER_BATCHES = (
    "note: the pairs are put into other batches than before, as another version of this program "
    "does; the run goes on with these, and not as it would have without the interruption"
)
OTHER_TEST = (
    "note: the pairs to test by are not those that the run began with; its score does not compare "
    "with an earlier one"
)
OTHER_JUDGES = (
    "note: the pairs to validate by, or how they are judged, are not those of before; scores from "
    "here on do not compare with earlier ones, and the best so far is forgotten"
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
    world: World = ALONE


def begun_or_new(request: Request) -> Request:
    """The request of ``--resume-or-start NAME`` as one to resume runs/NAME, or to start it."""
    name = request.invocation.resume_or_start
    if name is None:
        return request
    path = Path("runs", name)
    if not (path / "settings.json").exists():
        asked = dataclasses.replace(request.invocation, name=name, resume_or_start=None)
        return dataclasses.replace(request, invocation=asked)
    asked = dataclasses.replace(request.invocation, resume=str(path), resume_or_start=None)
    check_begun_alike(path, request)
    # The model that it began with is its own by now.
    given = {name: value for name, value in request.given.items() if name != "init"}
    chosen = preset_values(given["preset"]) if "preset" in given else {}
    return dataclasses.replace(request, invocation=asked, given=chosen | given)


def check_begun_alike(path: Path, request: Request) -> None:
    """Raise a UserError where a run that is there began with another model than is asked for."""
    began = RunRecord.load(RunFolder.open(path).settings).settings.init
    wanted = request.settings.init
    if wanted is not None and began not in (wanted, str(Path(wanted).absolute())):
        with_what = f"--init {began}" if began else "no --init"
        raise UserError(f"{path} began with {with_what}, not {wanted}; give that, or another name")


def device(request: Request) -> str:
    """The kind of device that was asked for, or, on resuming, that the run was trained on."""
    path = request.invocation.resume
    if path is None or "device" in request.given:
        return request.given.get("device", request.settings.device)
    return RunRecord.load(RunFolder.open(Path(path)).settings).settings.device


def backend_name(request: Request) -> str:
    """The backend that was asked for, or, on resuming, the one that wrote the newest checkpoint."""
    invocation = request.invocation
    if invocation.resume is None or "backend" in request.given:
        return invocation.backend
    return RunRecord.load(RunFolder.open(Path(invocation.resume)).settings).backend


def start(request: Request, name: str, make_backend: MakeBackend, world: World = ALONE) -> Started:
    """A new run folder with the weights to begin with; an existing folder is a UserError.

    The first process reads the data and fills the folder aside, from which the others go on; it
    has its name once all are ready. A model that came from elsewhere is the run's checkpoint of
    step 0: the run needs that folder no more.
    """
    processes, asked = world.processes, request.invocation
    shared = shared_name(processes)
    first = NewRun(request, name, shared)
    with processes.by_the_first(first.folder()) as place:
        with processes.together():
            begun = first.begun or begun_elsewhere(place, asked.verify, shared)
            check_rows(begun.prepared.plan, world)
        prepared, settings, progress = begun.prepared, begun.settings, begun.progress()
        agree_on_data(processes, prepared)
        with processes.together():
            check_fits(prepared, settings, world)
            state = begun.state()
        agree_on_weights(processes, state)
        with processes.together():
            backend = make_backend(prepared.config, settings, state)
        if begun.opened is not None:
            folder = RunFolder(place.aside).checkpoint(progress.step)
            write_checkpoint(folder, backend, progress, processes)
    heading = f"run {place.path}: backend {name}, {settings.dtype}, preset {asked.preset}"
    notes = [heading, *first.left, *about_devices(prepared.plan, world)]
    notes += [*begun.notes, *about(prepared)]
    run, record = RunFolder(place.here), first_record(begun, name)
    return Started(run, record, prepared, backend, progress, notes, asked.verify, world)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the first process makes a run: as it was named, in full, and aside until then."""

    path: Path
    absolute: Path
    aside: Path

    @property
    def here(self) -> Path:
        """The path as it was named where that leads there, whatever folder is the current one."""
        return self.path if self.path.absolute() == self.absolute else self.absolute


class NewRun:
    """A new run as the first process begins it; ``begun`` is there once its folder is."""

    def __init__(self, request: Request, name: str, shared: str | None) -> None:
        self.request, self.name, self.shared = request, name, shared
        self.begun: Beginning | None = None
        self.left: list[str] = []  # notes on what a process that was killed had left

    @contextlib.contextmanager
    def folder(self) -> Iterator[Place]:
        """Read the data and fill the folder aside; it has its name where the block ends well."""
        request, path = self.request, self._path()
        settings, verify = request.settings.anchored(), request.invocation.verify
        begun = begin(settings, request.model, request.given, verify, self.shared)
        check_known(begun.prepared, begun.settings)
        check_judging(begun.prepared, begun.settings)
        self.left = remove_abandoned(path)
        with disk_full_is_clear(RunFolder(path), "cannot make the run folder"):
            with RunFolder.aside(path) as aside:
                begun.save(aside)
                first_record(begun, self.name).save(aside.settings)
                self.begun = begun
                yield Place(path, path.absolute(), aside.path.absolute())

    def _path(self) -> Path:
        settings, asked = self.request.settings.anchored(), self.request.invocation
        path = Path(asked.out or Path("runs", asked.name or ""))
        if asked.out is None and asked.name is None:
            path = default_run_path(settings, self.name)
        elif os.path.lexists(path):
            raise already_there(path, "--name" if asked.out is None else "--out")
        check_parent(path)
        return path


def begun_elsewhere(place: Place, verify: bool, shared: str | None) -> Beginning:
    """What a new run begins with, by the folder that the first process has filled aside."""
    check_seen(place.aside)
    run = RunFolder(place.aside)
    settings = RunRecord.load(run.settings).settings
    source, target = (load_vocabulary(run.vocabulary, side) for side in ("source", "target"))
    search = load_search(run.search) if run.search.exists() else None
    config = TransformerConfig.load(run.config)
    prepared = prepare_from(settings, (source, target), config, search, shared)
    opened = None if settings.init is None else open_model(settings.init, verify=verify)
    return Beginning(settings, prepared, opened)


def first_record(begun: Beginning, name: str) -> RunRecord:
    """What settings.json says before the first step."""
    prepared = begun.prepared
    return RunRecord(
        begun.settings,
        name,
        prepared.fingerprint,
        newest_checkpoint=None if begun.opened is None else begun.progress().step,
        **fingerprints_of(prepared),
    )


def fingerprints_of(prepared: Prepared) -> dict[str, str]:
    """What a record says of batches and of what judges, by its fields' names."""
    return {
        "plan_fingerprint": prepared.plan.fingerprint,
        "judged_fingerprint": prepared.judged_fingerprint,
        "valid_fingerprint": prepared.valid_fingerprint,
    }


def check_known(prepared: Prepared, settings: TrainingSettings) -> None:
    """Raise a UserError, before training, where ``--init`` knows hardly a text of a side.

    Vocabularies of the data's own are as large as was asked for, and a note is enough.
    """
    faults = Faults()
    for fault in unknown_sides(prepared.unknown, MOST) if settings.init is not None else ():
        faults.add(fault)
    advice = (
        f"{settings.init} hardly knows such texts: give data in its languages, source and target "
        "the right way round, or train a model of this data without --init"
    )
    faults.raise_if_any("most of the data cannot be learned", advice=advice)


def check_judging(prepared: Prepared, settings: TrainingSettings) -> None:
    """Raise a UserError, before training, where the scores cannot be taken."""
    if prepared.corpus.task == "translation":
        bleu(settings.bleu_tokenize)


def check_fits(prepared: Prepared, settings: TrainingSettings, world: World = ALONE) -> None:
    """Raise a UserError where the model, or the beam of the final test, is beyond all memory.

    The weights are always made here, a process's part of them where they are split; of an
    accelerator's own memory nothing is known yet.
    """
    mesh, processes = world.mesh, world.processes.count
    part = min(1.0, mesh.devices / processes / mesh.fsdp)
    config, size = prepared.config, np.dtype(settings.weight_dtype).itemsize
    count, here = parameters(config), settings.device in ("cpu", "auto")
    what = f"a model of {count:,} parameters{', with gradients and moments,' if here else ''}"
    check_memory(
        int(count * size * (COPIES if here else 1) * part), what, "give smaller sizes of the model"
    )
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


def resume(request: Request, name: str, make_backend: MakeBackend, world: World = ALONE) -> Started:
    """The run of ``--resume`` as it was after the checkpoint that the first process chooses."""
    processes, asked = world.processes, request.invocation
    run = RunFolder(Path(asked.resume or ""))
    check_shared(run, processes)
    with processes.together():
        record = RunRecord.load(RunFolder.open(run.path).settings)
        settings = resumed_settings(request, record.settings, run)
        chosen = None
        if processes.first:
            chosen = choose_checkpoint(run, record.newest_checkpoint, asked.from_step)
    step, shared = processes.broadcast(chosen), shared_name(processes)
    with processes.together():
        progress = Progress() if step is None else Progress.load(run.checkpoint(step) / PROGRESS)
        prepared = same_data(run, record, settings, progress, shared)
        check_judging(prepared, settings)
        check_rows(prepared.plan, world)
        check_fits(prepared, settings, world)
    agree_on_data(processes, prepared)
    with processes.together():
        if step is None:
            state = first_state(prepared.config, settings)
        else:
            state = chosen_state(run, step, asked.verify)
        backend = make_backend(prepared.config, settings, state)
    lost = forget_lost_best(run, progress, processes)
    if judged_otherwise(record, settings, prepared):
        progress.judge_anew()
    with processes.together():
        settled = _settle_folder(run, progress, asked.from_step) if processes.first else []
    heading = f"run {run.path}: backend {name}, {settings.dtype}, after step {progress.step}"
    notes = [heading, *about_devices(prepared.plan, world), *about(prepared), *settled]
    notes += [*lost, *changes(record, settings, prepared)]
    record = dataclasses.replace(
        record,
        settings=settings,
        newest_checkpoint=step,
        **fingerprints_of(prepared),
    )
    return Started(run, record, prepared, backend, progress, notes, asked.verify, world)


def same_data(
    run: RunFolder,
    record: RunRecord,
    settings: TrainingSettings,
    progress: Progress,
    shared: str | None,
) -> Prepared:
    """The data of a run that goes on; other pairs than it began with are a UserError."""
    if progress.step > settings.steps:
        raise UserError(f"{run.path} has done {progress.step} steps; --steps cannot be fewer")
    prepared = prepare_again(settings, run, shared)
    if prepared.fingerprint != record.data_fingerprint:
        raise UserError(
            f"the training data of {settings.data}, or what {run.vocabulary} makes of it, is not "
            f"what {run.path} began with; put data and vocabularies back as they were, or start a "
            "new run"
        )
    return prepared


def changes(record: RunRecord, settings: TrainingSettings, prepared: Prepared) -> list[str]:
    """Notes on what is not as it was when the run began."""
    notes = []
    if prepared.plan.fingerprint != record.plan_fingerprint:
        notes.append(OTHER_BATCHES if record.plan_fingerprint else UNKNOWN_BATCHES)
    if judged_otherwise(record, settings, prepared):
        notes.append(OTHER_JUDGES)
    elif record.judged_fingerprint not in (None, prepared.judged_fingerprint):
        notes.append(OTHER_TEST)
    return notes


def judged_otherwise(record: RunRecord, settings: TrainingSettings, prepared: Prepared) -> bool:
    """Whether scores of validations do not compare with those that the record's settings give."""
    before = (getattr(record.settings, name) for name in JUDGING)
    same = tuple(before) == tuple(getattr(settings, name) for name in JUDGING)
    return not same or record.valid_fingerprint not in (None, prepared.valid_fingerprint)


def _settle_folder(run: RunFolder, progress: Progress, from_step: int | None) -> list[str]:
    """Clear away what an interruption left, once the checkpoint is known to be good."""
    leftovers = run.remove_leftovers()
    later = set_aside_after(run, progress.step) if from_step is not None else []
    repair_best(run, progress)
    notes = [f"removed {name}, left by an interrupted save" for name in leftovers]
    return notes + [f"kept a later checkpoint as {name}" for name in later]


def resumed_settings(
    request: Request, stored: TrainingSettings, run: RunFolder
) -> TrainingSettings:
    """The run's settings with what may change; anything else that differs is named in an error."""
    faults, changed, config = Faults(), {}, TransformerConfig.load(run.config)
    before: dict[str, Any] = {**dataclasses.asdict(config), **dataclasses.asdict(stored)}
    for name in [n for n in request.given if n in SETTINGS or n in MODEL]:
        value = request.given[name]
        if SETTINGS.get(name) is not None and SETTINGS[name].resumable:
            changed[name] = value
        elif value != before[name]:
            was, wanted = as_text(before[name]), as_text(value)
            faults.add(f"{ALL[name].flag} {wanted} differs from the run's {was}")
    allowed = [d.flag for d in (*INVOCATION.values(), *SETTINGS.values()) if d.resumable]
    advice = f"what may change: --backend, --mesh, {', '.join(allowed)}"
    if not run.steps():
        advice += (
            f"\n{run.path} has no checkpoint yet: to start anew with other settings, remove it or "
            "choose another name"
        )
    faults.raise_if_any("a resumed run keeps its settings", advice=advice)
    given = dataclasses.replace(stored, **changed).anchored()
    # What was not given stays as it was, relative to this folder where an older version wrote it.
    return dataclasses.replace(stored, **{name: getattr(given, name) for name in changed})
