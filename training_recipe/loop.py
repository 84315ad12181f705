"""The only training loop: step, log, evaluate, save; both backends run in it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from training_recipe.backend import MakeBackend
from training_recipe.checkpoints import disk_full_is_clear, prune, save_checkpoint
from training_recipe.curves import draw_curves
from training_recipe.display import Display
from training_recipe.evaluation import Judge, Judgement
from training_recipe.interrupts import Interrupted, Interrupts
from training_recipe.locking import locked
from training_recipe.metrics import Metrics
from training_recipe.progress import LogWindow
from training_recipe.report import final_lines, validation_lines
from training_recipe.request import Request
from training_recipe.run_folder import RunFolder
from training_recipe.schedule import learning_rate
from training_recipe.speed import Speed, seconds_since
from training_recipe.starting import Started, resume, start


def train(request: Request, backend_name: str, make_backend: MakeBackend) -> int:
    """Do what was asked for, from data to final test; the exit status."""
    with contextlib.ExitStack() as held:
        if request.invocation.resume is not None:
            held.enter_context(locked(RunFolder.open(Path(request.invocation.resume))))
            started = resume(request, backend_name, make_backend)
        else:
            started = start(request, backend_name, make_backend)
            held.enter_context(locked(started.run))
        held.enter_context(disk_full_is_clear(started.run, "training stopped"))
        return Training(started).run_to_end()


class Training:
    """One run in progress; ``progress`` always says what a checkpoint made now would hold."""

    def __init__(self, started: Started) -> None:
        self.run, self.record, self.progress = started.run, started.record, started.progress
        self.prepared, self.backend = started.prepared, started.backend
        self.settings = started.record.settings
        self.interrupts = Interrupts()
        self.judge = Judge(self.backend, self.prepared, self.settings, self.interrupts.check)
        self.metrics = Metrics(self.run, self.progress.metrics_lines)
        self.display = Display(self.settings.steps, self.progress.step)
        self.speed = Speed()
        for note in started.notes:
            self.display.line(note)

    def run_to_end(self) -> int:
        """Train, test, draw; or stop when asked to, saved. The exit status."""
        with self.interrupts, self._closed_at_the_end():
            try:
                self._train()
            except Interrupted as stop:
                return self._leave(stop)
            self.display.close()
            try:
                self._test()
            except Interrupted as stop:
                return self._say_how_to_go_on(stop)
        return 0

    def _test(self) -> None:
        """Judge the best checkpoint by the test set, draw the curves, say what to do next."""
        draw_curves(self.run)
        best, began = self.progress.best_step, time.monotonic()
        if best is not None and best != self.progress.step:
            self.backend.restore(self.run.checkpoint(best))
        step = self.progress.step if best is None else best
        found = self.judge.test()
        scores = found.scores.values if found.scores else {}
        record = {"kind": "test", "step": step, "scores": scores}
        self.metrics.write(record | {"speed": {"seconds": seconds_since(began)}})
        for line in final_lines(self.run, self.prepared, found, step, self.settings.samples):
            self.display.line(line)

    @contextlib.contextmanager
    def _closed_at_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.display.close()
            self.metrics.close()

    def _train(self) -> None:
        self.record.save(self.run.settings)
        if not self.progress.evaluated:
            self._finish_step()
        while self.progress.step < self.settings.steps:
            self.interrupts.check()
            self._step()
            if self._is_due(self.settings.log_every):
                self._log()
            self.interrupts.check()
            self._finish_step()

    def _is_due(self, every: int) -> bool:
        step = self.progress.step
        return step % every == 0 or step == self.settings.steps

    def _step(self) -> None:
        step = self.progress.step + 1
        batch = self.prepared.plan.batch(step)
        result = self.backend.train_step(batch, step, learning_rate(step, self.settings))
        self.progress.take(step, batch, result)
        self.progress.evaluated = not self._is_due(self.settings.evaluate_every)
        self.speed.add(batch.tokens)
        self.display.step()

    def _log(self) -> None:
        """Read the results since the last log line, which waits for the device."""
        progress = self.progress
        progress.window.settle()
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
        self.metrics.write(record)
        self.progress.metrics_lines = self.metrics.lines

    def _finish_step(self) -> None:
        """Evaluate and save where the step asks for it; better than before is always saved."""
        improved = False
        if not self.progress.evaluated:
            with self.speed.paused():
                improved = self._evaluate()
        if improved or self._is_due(self.settings.save_every):
            with self.speed.paused():
                self._save()

    def _evaluate(self) -> bool:
        """Write loss and scores of the held-out examples; whether they are the best so far."""
        began = time.monotonic()
        found = self.judge.validate()
        improved = self._note_best(found)
        record = {"kind": "evaluation", "step": self.progress.step, "epoch": self.progress.epoch}
        record |= {"loss": found.loss, "scores": found.scores.values if found.scores else {}}
        self._write(record | {"best": improved, "speed": {"seconds": seconds_since(began)}})
        self.progress.evaluated = True
        for line in validation_lines(found, record["step"], improved, self.settings.samples):
            self.display.line(line)
        return improved

    def _note_best(self, found: Judgement) -> bool:
        progress, (name, value) = self.progress, found.main
        before = progress.best_score if progress.best_name == name else None
        if before is not None and not found.is_better_than(before):
            return False
        progress.best_name, progress.best_score, progress.best_step = name, value, progress.step
        return True

    def _save(self) -> None:
        """Write a checkpoint, then record it, then remove what is not to be kept."""
        self.progress.window.settle()
        self.metrics.sync()
        save_checkpoint(self.run, self.backend, self.progress)
        self.record = dataclasses.replace(
            self.record, backend=self.progress.backend, newest_checkpoint=self.progress.step
        )
        self.record.save(self.run.settings)
        prune(self.run, self.settings.keep, self.progress.best_step)

    def _leave(self, stop: Interrupted) -> int:
        if self.progress.step > 0:
            self._save()
        draw_curves(self.run)
        return self._say_how_to_go_on(stop)

    def _say_how_to_go_on(self, stop: Interrupted) -> int:
        step, steps = self.progress.step, self.settings.steps
        self.display.line(f"{stop} after step {step} of {steps}; go on with:")
        self.display.line(f"  python train.py --resume {self.run.path}")
        return stop.status
