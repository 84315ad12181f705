"""How far a run has come: what ``progress.json`` of a checkpoint holds beside the weights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from training_recipe.backend import StepResult
from training_recipe.batches import Batch
from training_recipe.run_folder import read_json
from transformer_spec import UserError


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
    pending: list[StepResult] = dataclasses.field(default_factory=list)

    def add(self, batch: Batch, result: StepResult) -> None:
        """Take one step's result without waiting for the device."""
        self.steps += 1
        self.tokens += batch.tokens
        self.pending.append(result)

    def settle(self) -> None:
        """Wait for the pending results; a number that is not finite is a UserError."""
        for result in self.pending:
            self.loss_sum += float(result.loss_sum)
            self.gradient_norm_sum += float(result.gradient_norm)
        self.pending.clear()
        if not math.isfinite(self.loss_sum) or not math.isfinite(self.gradient_norm_sum):
            raise UserError(
                "training diverged: loss or gradient is not a finite number any more; start again "
                "with a lower --peak-lr, a longer --warmup-steps or a smaller --clip-norm"
            )

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
    """The state of the loop after ``step`` steps; step 0 is the state before training."""

    step: int = 0
    epoch: int = 0
    index: int = 0
    backend: str = ""
    evaluated: bool = True
    best_name: str | None = None
    best_score: float | None = None
    best_step: int | None = None
    metrics_lines: int = 0
    window: LogWindow = dataclasses.field(default_factory=LogWindow)

    def take(self, step: int, batch: Batch, result: StepResult) -> None:
        """Note that ``step`` is done."""
        self.step, self.epoch, self.index = step, batch.epoch, batch.index
        self.window.add(batch, result)

    def to_dict(self) -> dict[str, Any]:
        """The content of progress.json; the window must be settled."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return values | {"window": self.window.sums()}

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read progress.json; a damaged file is a UserError that names it."""
        content = read_json(path)
        names = [field.name for field in dataclasses.fields(cls)]
        try:
            values: dict[str, Any] = {name: content[name] for name in names}
            values["window"] = LogWindow(**content["window"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged: {error}") from None
