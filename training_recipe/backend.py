"""What the training loop asks of a framework; each twin's ``step.py`` fills this Protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from training_recipe.batching.batches import Batch
    from training_recipe.options.settings import TrainingSettings
    from training_recipe.searching.search import Hypothesis, Search
    from training_recipe.searching.workers import Workers
    from transformer_spec import TransformerConfig


ARRAYS = ("weights", "first_moments", "second_moments", "raw")  # the fields that are mappings


@dataclass(frozen=True)
class Checkpoint:
    """Weights, both Adam moments and the optimizer's step count, under canonical names.

    Without an optimizer the moments are empty and the count is 0. ``weights`` are what the model is
    used by; ``raw`` are those that training goes on from, where they are others. ``label`` says
    in messages where all this is from. Where arrays are ``Parts``, none is read until it is asked
    for.
    """

    weights: Mapping[str, np.ndarray]
    first_moments: Mapping[str, np.ndarray] = field(default_factory=dict)
    second_moments: Mapping[str, np.ndarray] = field(default_factory=dict)
    count: int = 0
    raw: Mapping[str, np.ndarray] = field(default_factory=dict)
    label: str = "the checkpoint"

    def read(self) -> Checkpoint:
        """The same with every array read."""
        return self.changed(lambda field, arrays: dict(arrays))

    def changed(self, change: Callable[[str, Mapping[str, np.ndarray]], Any]) -> Checkpoint:
        """The same with other mappings: ``change`` is given each field's name and its arrays."""
        return replace(self, **{field: change(field, getattr(self, field)) for field in ARRAYS})


@dataclass(frozen=True)
class StepResult:
    """What one training step reports; numbers may still lie on the device, ``float(x)`` waits.

    ``loss_sum`` is the objective (with label smoothing) in nats, summed over all ``tokens`` of the
    step, ``gradient_norm`` the global norm before clipping.
    """

    loss_sum: Any
    tokens: Any
    gradient_norm: Any


class Backend(Protocol):
    """A model with its optimizer in one framework; it knows no folder and no file.

    Where several processes train, all call every method with equal arguments, in the same order,
    and get equal results: batches, sources and sums are those of all devices together.

    With ``ema_decay`` the model that is evaluated, decoded with and saved for use has the moving
    average of the weights; the weights that training goes on from are ``raw`` in its state.
    """

    name: str
    config: TransformerConfig

    @property
    def model(self) -> Any:
        """The framework's own model, with the weights that are evaluated and decoded with."""
        ...

    @property
    def workers(self) -> Workers:
        """Who may ``decode`` side by side: nobody where several devices do so together."""
        ...

    def train_step(self, batches: Sequence[Batch], step: int, learning_rate: float) -> StepResult:
        """Update the weights once, without waiting, by the mean gradient over all batches' tokens.

        Dropout depends on the seed and the batches' numbers alone.
        """
        ...

    def evaluate(self, batch: Batch) -> tuple[float, int]:
        """Token cross-entropy in nats, without smoothing or dropout, summed; and the tokens."""
        ...

    def encode(self, source: np.ndarray) -> np.ndarray:
        """The encoder's output (B, S, D) for ``source`` (B, S) int32, padding included."""
        ...

    def decode(self, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
        """The n best outputs of each row of ``source`` (B, S) int32, best first."""
        ...

    def parts(self) -> Checkpoint:
        """All that training goes on from, in ``Parts``: reading one is collective too."""
        ...

    def state(self) -> Checkpoint:
        """The same in arrays of its own."""
        ...

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a state; one that does not fit is a UserError.

        Without moments in it the optimizer begins anew.
        """
        ...


MakeBackend = Callable[["TransformerConfig", "TrainingSettings", Checkpoint], Backend]
