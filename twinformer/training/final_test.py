"""The end of a run: which weights it is used by from now on, and how good these are."""

from __future__ import annotations

import time
from pathlib import Path

from training_recipe.options.invocation import typed
from training_recipe.runs.averages import averaged_steps
from training_recipe.runs.metrics import Counted, Metrics, Record
from twinformer.training.averages import save_average
from twinformer.training.display import Display
from twinformer.training.evaluation.judge import Judge, Judgement
from twinformer.training.evaluation.report import final_lines, validation_lines
from twinformer.training.speed import seconds_since
from twinformer.training.starting import Started
from twinformer.training.states import use_weights


class FinalTest:
    """Tests the best checkpoint, or the mean of the last ones where the settings ask for it."""

    def __init__(
        self, started: Started, judge: Judge, metrics: Metrics | Counted, display: Display
    ) -> None:
        self.run_folder, self.progress = started.run, started.progress
        self.prepared, self.backend = started.prepared, started.backend
        self.settings, self.verify = started.record.settings, started.verify
        self.judge, self.metrics, self.display = judge, metrics, display
        self.processes = started.world.processes

    def run(self) -> Judgement:
        """Write and show the scores of the test examples, and what to do next."""
        self._say_if_early()
        average = self._take_average() if self.settings.average else []
        what, step = self._about_average(average) if average else self._take_best()
        began = time.monotonic()
        found = self.judge.test()
        record = {"kind": "test", "step": step, **found.record()}
        record |= {"average_of": average} if average else {}
        record |= {"stopped_early_after": self.progress.step} if self._is_early() else {}
        self._write(record | {"speed": {"seconds": seconds_since(began)}})
        for line in final_lines(self.run_folder, self.prepared, found, what, self.settings):
            self.display.line(line)
        return found

    def _write(self, record: Record) -> None:
        with self.processes.together():
            self.metrics.write(record)

    def _use(self, folder: Path) -> None:
        with self.processes.together():
            use_weights(self.backend, folder, self.verify)

    def _is_early(self) -> bool:
        return self.progress.step < self.settings.steps

    def _say_if_early(self) -> None:
        if self._is_early():
            steps = f"step {self.progress.step} of {self.settings.steps}"
            self.display.line(
                f"stopped early after {steps}: {self.progress.since_best} validations without "
                f"improvement; go on with --resume {typed(self.run_folder.path)} --patience 0"
            )

    def _take_best(self) -> tuple[str, int]:
        """Take the best checkpoint's weights; what they are, and its step."""
        best = self.progress.best_step
        if best is not None and best != self.progress.step:
            self._use(self.run_folder.checkpoint(best))
        step = self.progress.step if best is None else best
        if step == 0:
            return "of the model as it came, than which none was better", step
        return f"of the checkpoint after step {step}", step

    def _take_average(self) -> list[int]:
        """Take the mean of the last checkpoints, which is validated too; their steps."""
        began, settings = time.monotonic(), self.settings
        saved = self.processes.broadcast(self.run_folder.steps())
        steps = averaged_steps(saved, settings.average, settings.save_every)
        with self.processes.together():
            if self.processes.first:
                save_average(self.run_folder, self.prepared.config, steps)
        self._use(self.run_folder.average(steps[-1], len(steps)))
        found = self.judge.validate()
        record = {"kind": "average", "step": steps[-1], "average_of": steps, **found.record()}
        self._write(record | {"speed": {"seconds": seconds_since(began)}})
        what, _ = self._about_average(steps)
        for line in [*validation_lines(what, found, False, settings.samples), *self._best_single()]:
            self.display.line(line)
        return steps

    def _about_average(self, steps: list[int]) -> tuple[str, int]:
        all_there_are = ", all there are" if len(steps) < self.settings.average else ""
        listed = ", ".join(map(str, steps))
        count = f"{len(steps)} checkpoints{all_there_are}"
        return f"of the mean of {count} (steps {listed})", steps[-1]

    def _best_single(self) -> list[str]:
        progress = self.progress
        if progress.best_score is None:
            return []
        score = f"{progress.best_name} {progress.best_score:.4g}"
        which = f"after step {progress.best_step}" if progress.best_step else "as the model came"
        return [f"  the best single checkpoint had {score}, {which}"]
