"""The same training on both backends, compared step by step: a request, one call, a report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from parity.frameworks import both_frameworks
from parity.training.task import Task, check_comparable, find_task
from training_recipe.runs.record import library_versions
from transformer_spec import Faults, TransformerConfig

if TYPE_CHECKING:
    from parity.training.steps import Curves, Step

FORMAT_VERSION = 1
DTYPES = ("float64", "float32")
# Wraps the steps of a number format as they come: a progress bar.
Shown = Callable[[Iterable["Step"], str, int], Iterable["Step"]]


@dataclasses.dataclass(frozen=True)
class TrainingRequest:
    """Which training to compare over ``steps`` steps.

    ``source`` is a run folder, its settings.json or a recipe, None the defaults; ``flags`` are
    settings of the training command as its words. ``dropout`` (a rate), ``dropout_rng`` and
    ``seed`` stand in for the settings' own. float64 judges; ``dtype`` float32 is shown beside it.
    """

    source: str | None = None
    flags: tuple[str, ...] = ()
    steps: int = 100
    dtype: str = "float64"
    device: str = "cpu"
    dropout: float | None = None
    dropout_rng: str | None = None
    seed: int | None = None

    def find_faults(self, faults: Faults) -> None:
        """Values that nothing can be compared with."""
        faults.require(self.steps >= 1, f"--steps {self.steps} is too few; at least 1 is needed")
        fits = self.dropout is None or 0 <= self.dropout < 1
        faults.require(fits, f"--dropout {self.dropout} is no probability: from 0 to below 1")
        known = self.dtype in DTYPES
        faults.require(known, f"dtype is {self.dtype!r}; choose {' or '.join(DTYPES)}")

    def task(self) -> Task:
        """The training itself; its schedule is as long as the comparison at least."""
        task = find_task(self.source, list(self.flags))
        task = task.changed(
            self.dropout,
            steps=max(task.settings.steps, self.steps),
            device=self.device,
            dropout_rng=self.dropout_rng,
            seed=self.seed,
        )
        check_comparable(task.settings, task.rates.values())
        return task


@dataclasses.dataclass(frozen=True)
class TrainingReport:
    """The steps of both sides by number format, and whether they are the same training.

    ``bound`` is the most by which float64 losses may differ.
    """

    task: Task
    config: TransformerConfig
    curves: Curves
    bound: float
    same: bool
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON data."""
        from parity.training.steps import plain

        return {
            "format_version": FORMAT_VERSION,
            "what": self.task.what,
            "device": self.task.settings.device,
            "config": self.config.to_dict(),
            "settings": self.task.settings.to_dict(),
            "versions": library_versions(),
            "curves": {dtype: plain(curve) for dtype, curve in self.curves.items()},
            "bound": self.bound,
            "passed": self.same,
            "verdict": self.verdict,
        }


def compare_training(
    request: TrainingRequest,
    say: Callable[[str], object] = lambda line: None,
    shown: Shown = lambda steps, dtype, count: steps,
) -> TrainingReport:
    """Train on both backends from the same weights and batches, and judge.

    ``say`` hears what is trained and on what data. What cannot be compared is a UserError.
    """
    faults = Faults()
    request.find_faults(faults)
    faults.raise_if_any("cannot compare")
    task = request.task()
    # The frameworks take seconds to import, which mistakes must not wait for.
    with both_frameworks():
        from parity.training.steps import bound, judge, train_both
    prepared = task.prepare(task.settings)
    config = dataclasses.replace(prepared.config, **task.changes)
    say("\n".join([f"{task.what}, seed {task.settings.seed}", *prepared.notes]))
    curves = {}
    for dtype in dict.fromkeys(("float64", request.dtype)):
        settings = dataclasses.replace(task.settings, dtype=dtype)
        batches = functools.partial(prepared.plan.batches, count=settings.accumulate)
        steps = train_both(config, settings, batches, request.steps)
        curves[dtype] = list(shown(steps, dtype, request.steps))
    most = bound(config)
    return TrainingReport(task, config, curves, most, *judge(curves["float64"], most))
