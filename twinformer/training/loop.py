"""The only training loop: step, log, evaluate, save; both backends run in it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from training_recipe.backend import MakeBackend
from training_recipe.distributed.processes import ALONE, Vote, World
from training_recipe.options.extras import TRAINING, require
from training_recipe.options.invocation import typed, words
from training_recipe.options.request import Request
from training_recipe.options.schedule import learning_rate
from training_recipe.runs.curves import draw_curves
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.lock import locked
from training_recipe.runs.metrics import Counted, Metrics
from training_recipe.runs.progress import DivergedError, LogWindow
from transformer_spec import UserError
from twinformer.training.agreement import agree_on_command
from twinformer.training.checkpoints import disk_full_is_clear, prune, save_checkpoint
from twinformer.training.display import Display, Silent
from twinformer.training.evaluation.judge import Judge, Judgement
from twinformer.training.evaluation.report import validation_lines
from twinformer.training.final_test import FinalTest
from twinformer.training.interrupts import Interrupted, Interrupts
from twinformer.training.speed import Speed, seconds_since
from twinformer.training.starting import Started, resume, start


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run as training left it: its folder, the steps done and the scores of the final test.

    ``scores`` are in percent, by name. ``status`` is 0, or 128 plus the number of the signal that
    stopped it; it is saved then, without scores.
    """

    folder: Path
    steps: int
    scores: dict[str, float]
    status: int = 0


def train(
    request: Request, backend_name: str, make_backend: MakeBackend, world: World = ALONE
) -> Trained:
    """Do what was asked for, from data to final test; all processes of the world call it.

    An error of one is raised in all, and all stop after the same step.
    """
    processes = world.processes
    with processes.together():
        require("train", "training", *TRAINING)
    agree_on_command(request, backend_name, world)
    with contextlib.ExitStack() as held:
        if request.invocation.resume is not None:
            with processes.together():
                if processes.first:
                    run = RunFolder.open(Path(request.invocation.resume))
                    held.enter_context(locked(run))
            started = resume(request, backend_name, make_backend, world)
        else:
            started = start(request, backend_name, make_backend, world)
            with processes.together():
                if processes.first:
                    held.enter_context(locked(started.run))
        held.enter_context(disk_full_is_clear(started.run, "training stopped"))
        return Training(started).run_to_end()


class Training:
    """One run in progress; ``progress`` always says what a checkpoint made now would hold."""

    def __init__(self, started: Started) -> None:
        self.run, self.record, self.progress = started.run, started.record, started.progress
        self.prepared, self.backend = started.prepared, started.backend
        self.settings = started.record.settings
        self.started, self.processes = started, started.world.processes
        self.interrupts, self.late = Interrupts(self.processes), Vote(self.processes)
        self.judge = Judge(self.backend, self.prepared, self.settings, self.interrupts.check)
        self.metrics = self._open_metrics()
        self.display = Silent()
        if self.processes.first:
            devices = started.world.mesh.devices
            done, unread = self.progress.step, self.interrupts.unread
            self.display = Display(self.settings.steps, done, devices, unread=unread)
        self.speed = Speed()
        self.saved_at = time.monotonic()
        for note in started.notes:
            self.display.line(note)

    def _open_metrics(self) -> Metrics | Counted:
        """What writes metrics in the first process, and counts with it in the others."""
        kept, first = self.progress.metrics_lines, self.processes.first
        with self.processes.together():
            opened = Metrics(self.run, kept) if first else Counted(kept)
        lines = self.processes.broadcast(opened.lines)
        return opened if first else Counted(lines)

    def run_to_end(self) -> Trained:
        """Train, test, draw; or stop when asked to, saved."""
        with self.interrupts, self._closed_at_the_end():
            try:
                self._train()
            except Interrupted as stop:
                return self._leave(stop)
            self.display.close()
            self._draw()
            try:
                found = FinalTest(self.started, self.judge, self.metrics, self.display).run()
            except Interrupted as stop:
                return self._say_how_to_go_on(stop)
        scores = found.scores.values if found.scores else {}
        return Trained(self.run.path, self.progress.step, scores)

    @contextlib.contextmanager
    def _closed_at_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.display.close()
            self.metrics.close()

    def _train(self) -> None:
        patience = self.settings.patience
        self._note_record()
        if self.progress.step == self.settings.steps:
            self._catch_up()
        if not self.progress.evaluated:
            self._finish_step()
        while self.progress.step < self.settings.steps and not self.progress.is_out_of(patience):
            self.interrupts.check()
            self._step()
            if self._is_due(self.settings.log_every):
                self._log()
            self.interrupts.check()
            self._finish_step()

    def _note_record(self) -> None:
        with self.processes.together():
            if self.processes.first:
                self.record.save(self.run.settings)

    def _draw(self) -> None:
        with self.processes.together():
            if self.processes.first:
                draw_curves(self.run)

    def _catch_up(self) -> None:
        """Do what only the last step asks for, where a run resumed there has no more to do."""
        progress = self.progress
        if progress.validated != progress.step:
            progress.evaluated = False
        if progress.window.steps:
            self._log()
            self._finish_step()

    def _is_due(self, every: int) -> bool:
        step = self.progress.step
        return step % every == 0 or step == self.settings.steps

    def _is_late(self) -> bool:
        """Whether so much time has gone since the last save that a loss of it would hurt."""
        most = 60 * self.settings.save_minutes
        if most == 0:
            return False
        return bool(self.late.of_all(int(most <= time.monotonic() - self.saved_at)))

    def _step(self) -> None:
        step = self.progress.step + 1
        batches = self.prepared.plan.batches(step, self.settings.accumulate)
        rate = learning_rate(step, self.settings)
        result = self.backend.train_step(batches, step, rate)
        self.progress.take(step, batches, result)
        self.progress.evaluated = not self._is_due(self.settings.evaluate_every)
        self.speed.add(sum(batch.tokens for batch in batches))
        self.display.step()

    def _settle(self) -> None:
        """Wait for the results of all steps before anything is evaluated or saved.

        A step that diverged is a UserError that names it and the last good checkpoint.
        """
        try:
            self.progress.settle()
        except DivergedError as fault:
            raise UserError(f"{fault}; {self._way_back()}") from None

    def _way_back(self) -> str:
        steps = self.run.steps()
        last = "no checkpoint was saved yet"
        if steps:
            last = f"{self.run.checkpoint(steps[-1])} is the last good checkpoint"
        clipping = "a smaller --clip-norm" if self.settings.clip_norm else "--clip-norm 1"
        return (
            f"{last}; the same settings lead there again: start anew, under another name or once "
            f"{self.run.path} is removed, with a lower --peak-lr, a longer --warmup-steps or "
            f"{clipping}"
        )

    def _log(self) -> None:
        """Write the means over the steps since the last log line."""
        progress = self.progress
        self._settle()
        record = {
            "kind": "train",
            "step": progress.step,
            "epoch": progress.epoch,
            **progress.window.means(),
            "learning_rate": learning_rate(progress.step, self.settings),
            "tokens": progress.window.tokens,
            "speed": self.speed.read(),
        }
        progress.window = LogWindow()
        self._write(record)
        self.display.log(record)

    def _write(self, record: dict) -> None:
        with self.processes.together():
            self.metrics.write(record)
        self.progress.metrics_lines = self.metrics.lines

    def _finish_step(self) -> None:
        """Evaluate and save where the step asks for it; the best and the last are always saved."""
        improved = False
        if not self.progress.evaluated:
            self._settle()
            with self.speed.paused():
                improved = self._evaluate()
        over = self.progress.is_out_of(self.settings.patience)
        late = self._is_late()
        if improved or over or late or self._is_due(self.settings.save_every):
            self._settle()
            with self.speed.paused():
                self._save()

    def _evaluate(self) -> bool:
        """Write loss and scores of the held-out examples; whether they are the best so far."""
        began = time.monotonic()
        found = self.judge.validate()
        improved = self._note_best(found)
        record = {"kind": "evaluation", "step": self.progress.step, "epoch": self.progress.epoch}
        record |= found.record() | {"best": improved, "since_best": self.progress.since_best}
        self._write(record | {"speed": {"seconds": seconds_since(began)}})
        self.progress.evaluated, self.progress.validated = True, self.progress.step
        what = f"after step {record['step']}" if record["step"] else "of the model as it came"
        for line in validation_lines(what, found, improved, self.settings.samples):
            self.display.line(line)
        return improved

    def _note_best(self, found: Judgement) -> bool:
        progress = self.progress
        said = *found.main, found.loss, self._is_better(found)
        name, value, loss, better = self.processes.broadcast(said)
        if not better:
            progress.since_best += 1
            return False
        progress.since_best = 0
        progress.best_name, progress.best_score, progress.best_step = name, value, progress.step
        progress.best_loss = loss
        return True

    def _is_better(self, found: Judgement) -> bool:
        name, _ = found.main
        before = self.progress.best_score if self.progress.best_name == name else None
        return before is None or found.is_better_than(before, self.progress.best_loss)

    def _save(self) -> None:
        """Write a checkpoint, then record it, then remove what is not to be kept."""
        self._settle()
        with self.processes.together():
            self.metrics.sync()
        save_checkpoint(self.run, self.backend, self.progress, self.processes)
        self.record = dataclasses.replace(
            self.record, backend=self.progress.backend, newest_checkpoint=self.progress.step
        )
        self._note_record()
        with self.processes.together():
            if self.processes.first:
                prune(self.run, self.settings, self.progress.best_step)
        self.saved_at, self.late = time.monotonic(), Vote(self.processes)

    def _leave(self, stop: Interrupted) -> Trained:
        if self.progress.step > 0:
            self._save()
        self._draw()
        return self._say_how_to_go_on(stop)

    def _say_how_to_go_on(self, stop: Interrupted) -> Trained:
        step, steps = self.progress.step, self.settings.steps
        self.display.line(f"{stop} after step {step} of {steps}; go on with:")
        mesh = self.started.world.mesh
        asked = f" --mesh {mesh.flag}" if mesh.devices > 1 else ""
        self.display.line(f"  {words('train')} --resume {typed(self.run.path)}{asked}")
        return Trained(self.run.path, step, {}, stop.status)
