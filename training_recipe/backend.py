"""What the training loop asks of a framework; each twin's ``training.py`` fills this Protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from training_recipe.batching.batches import Batch
    from training_recipe.options.settings import TrainingSettings
    from training_recipe.searching.search import Hypothesis, Search
    from transformer_spec import TransformerConfig


@dataclass(frozen=True)
class StepResult:
    """What one training step reports; numbers may still lie on the device, ``float(x)`` waits.

    ``loss_sum`` is the objective (with label smoothing) summed over all ``tokens`` of the step,
    ``gradient_norm`` the global norm before clipping.
    """

    loss_sum: Any
    tokens: Any
    gradient_norm: Any


class Backend(Protocol):
    """A model with its optimizer in one framework.

    With ``ema_decay`` the model that is evaluated, decoded with and saved for use has the moving
    average of the weights; the weights that training goes on from are saved beside it.
    """

    name: str

    @property
    def model(self) -> Any:
        """The framework's own model, with the weights that are evaluated and decoded with."""
        ...

    def train_step(self, batch: Batch, step: int, learning_rate: float, *more: Batch) -> StepResult:
        """Update the weights once, without waiting, by the mean gradient over all batches' tokens.

        Dropout depends on the seed and the batches' numbers alone.
        """
        ...

    def evaluate(self, batch: Batch) -> tuple[float, int]:
        """Token cross-entropy without smoothing or dropout, summed, and the number of tokens."""
        ...

    def encode(self, source: np.ndarray) -> np.ndarray:
        """The encoder's output (B, S, D) for ``source`` (B, S) int32, padding included."""
        ...

    def decode(self, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
        """The n best outputs of each row of ``source`` (B, S) int32, best first."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimizer state into an existing empty folder."""
        ...

    def restore(self, folder: Path) -> None:
        """Read a checkpoint folder of either backend; one that does not fit is a UserError."""
        ...

    def use(self, folder: Path) -> None:
        """Take the weights that a checkpoint folder is used by, to judge them.

        The optimizer begins anew: no moments, and 0 steps.
        """
        ...

    def average(self, folders: list[Path], destination: Path) -> None:
        """Write the mean of the weights of checkpoint folders into an existing empty folder."""
        ...


MakeBackend = Callable[
    ["TransformerConfig", "TrainingSettings", "dict[str, np.ndarray] | None"], Backend
]
