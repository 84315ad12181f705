"""How far a run has come: what ``progress.json`` of a checkpoint holds beside the weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_recipe.backend import StepResult
from training_recipe.batching.batches import Batch
from training_recipe.files.json_files import read_json
from transformer_spec import Faults, UserError
from transformer_spec.errors import printable_name
from transformer_spec.json_text import read_fields

PROGRESS = "progress.json"
EXPLODED = 3.0  # times the first step's loss, which is that of a model that knows nothing
# What older checkpoints do not say; a first loss of 0 judges nothing.
ADDED: dict[str, Any] = {"since_best": 0, "first_loss": 0.0, "best_loss": None}


class DivergedError(UserError):
    """Loss or gradient of a step is not finite, or the loss exploded."""


@dataclasses.dataclass(frozen=True)
class Taken:
    """A step whose result may still lie on the device; epoch and index are its last batch's."""

    step: int
    epoch: int
    index: int
    tokens: int
    result: StepResult

    def read(self, first_loss: float | None) -> tuple[float, float]:
        """Summed loss and gradient norm, waiting for them; training gone wrong is a UserError.

        ``first_loss`` is the loss per token of the first step, None where this is the first.
        """
        loss_sum, norm = float(self.result.loss_sum), float(self.result.gradient_norm)
        loss = loss_sum / max(self.tokens, 1)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        if not math.isfinite(norm):
            raise self._diverged(f"the norm of the gradient is {norm}")
        if first_loss and loss > EXPLODED * first_loss:
            raise self._diverged(
                f"the loss is {loss:.4g} a token, more than {EXPLODED:g} times the {first_loss:.4g}"
                " of the first step"
            )
        return loss_sum, norm

    def _diverged(self, what: str) -> DivergedError:
        place = f"epoch {self.epoch}, batch index {self.index}"
        return DivergedError(f"training diverged at step {self.step} ({place}): {what}")


@dataclasses.dataclass
class LogWindow:
    """Sums since the last log line; results of the device wait in ``pending`` until read.

    The sums are running Python floats, so that a window that a checkpoint cut in two gives the
    same bits as a whole one.
    """

    steps: int = 0
    tokens: int = 0
    loss_sum: float = 0.0
    gradient_norm_sum: float = 0.0
    pending: list[Taken] = dataclasses.field(default_factory=list)

    def add(self, taken: Taken) -> None:
        """Take one step's result without waiting for the device."""
        self.steps += 1
        self.tokens += taken.tokens
        self.pending.append(taken)

    def settle(self, first_loss: float | None) -> None:
        """Wait for the pending results; a step that diverged is a DivergedError."""
        for taken in self.pending:
            loss_sum, norm = taken.read(first_loss)
            self.loss_sum += loss_sum
            self.gradient_norm_sum += norm
        self.pending.clear()

    def means(self) -> dict[str, float]:
        """Loss per token and mean gradient norm of the window, which must be settled."""
        return {
            "loss": self.loss_sum / max(self.tokens, 1),
            "gradient_norm": self.gradient_norm_sum / max(self.steps, 1),
        }

    def sums(self) -> dict[str, Any]:
        """What a checkpoint keeps of a settled window."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)[:-1]}


@dataclasses.dataclass
class Progress:
    """The state of the loop after ``step`` steps; step 0 is the state before training.

    ``evaluated`` is false while a validation of ``step`` is due, ``validated`` the last step that
    had one. ``best_loss`` chooses between equal scores. ``since_best`` counts the validations after
    the best one, ``first_loss`` is the objective per token of step 1, or what it began with where
    that is more.
    """

    step: int = 0
    epoch: int = 0
    index: int = 0
    backend: str = ""
    evaluated: bool = True
    validated: int | None = None
    best_name: str | None = None
    best_score: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    since_best: int = 0
    first_loss: float | None = None
    metrics_lines: int = 0
    window: LogWindow = dataclasses.field(default_factory=LogWindow)

    def take(self, step: int, batches: Sequence[Batch], result: StepResult) -> None:
        """Note that ``step`` is done."""
        last, tokens = batches[-1], sum(batch.tokens for batch in batches)
        self.step, self.epoch, self.index = step, last.epoch, last.index
        self.window.add(Taken(step, last.epoch, last.index, tokens, result))

    def forget_best(self) -> None:
        """What was the best so far counts no more: the next validation is the best."""
        self.best_name = self.best_score = self.best_loss = self.best_step = None
        self.since_best = 0

    def judge_anew(self) -> None:
        """Forget the best, and validate this step again where it or one before it was validated."""
        self.forget_best()
        self.evaluated = self.evaluated and self.validated is None

    def settle(self) -> None:
        """Wait for the results of all steps taken; one that diverged is a DivergedError."""
        pending = self.window.pending
        if pending and (self.first_loss is None or pending[0].step == 1):
            loss_sum, _ = pending[0].read(None)
            loss = loss_sum / max(pending[0].tokens, 1)
            self.first_loss = max(loss, self.first_loss or 0.0)
        self.window.settle(self.first_loss)

    def is_out_of(self, patience: int) -> bool:
        """Whether so many validations in a row brought nothing better; never where it is 0."""
        return 0 < patience <= self.since_best

    def to_dict(self) -> dict[str, Any]:
        """The content of progress.json; the window must be settled."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return values | {"window": self.window.sums()}

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read progress.json; a damaged file is a UserError that names it and every field."""
        content = read_json(path)
        validated = None if content.get("best_step") is None else content.get("step")
        content = dict(ADDED, validated=validated) | content
        faults, window = Faults(), content.get("window")
        values = read_fields(cls, content, faults)
        sums = read_fields(LogWindow, window, faults, "window.") if isinstance(window, dict) else {}
        faults.require(isinstance(window, dict), "window is missing or no object")
        for name in sums.keys() ^ (window.keys() if isinstance(window, dict) else ()):
            faults.require(name in sums, f"window.{printable_name(name)} is unknown")
        faults.raise_if_any(f"{path} is damaged")
        return cls(**values, window=LogWindow(**sums))
