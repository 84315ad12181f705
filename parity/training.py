"""Training on both backends, step by step, from the same weights and the same batches."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_transformer.training import JaxBackend
from flax_transformer.training import make_backend as make_jax
from parity.training_task import check_comparable, rates
from torch_transformer.training import TorchBackend
from torch_transformer.training import make_backend as make_torch
from training_recipe.batches import Batch
from training_recipe.schedule import learning_rate
from training_recipe.settings import TrainingSettings
from training_recipe.starting import first_weights
from transformer_spec import TransformerConfig, UserError, to_torch

# The largest difference of the loss per token that rounding in float64 may cause.
BOUND, BOUND_WITH_DROPOUT = 1e-9, 1e-8
DIFFERENCES = ("loss", "gradient_norm", "weight", "weight_relative")


class Both(NamedTuple):
    """One number on both sides."""

    torch: float
    jax: float

    @property
    def apart(self) -> float:
        return abs(self.torch - self.jax)

    @property
    def finite(self) -> bool:
        return math.isfinite(self.torch) and math.isfinite(self.jax)


class Step(NamedTuple):
    """One step on both sides.

    ``loss`` is the objective per target token, ``gradient_norm`` the norm before clipping;
    ``weight`` is the largest absolute difference of any weight after the step, found in ``where``,
    and ``weight_relative`` the Euclidean norm of all differences over that of all weights.
    """

    step: int
    loss: Both
    gradient_norm: Both
    weight: float
    weight_relative: float
    where: str

    @property
    def finite(self) -> bool:
        numbers = Both(self.weight, self.weight_relative)
        return self.loss.finite and self.gradient_norm.finite and numbers.finite

    def difference(self, of: str) -> float:
        """One of DIFFERENCES."""
        value = getattr(self, of)
        return value.apart if isinstance(value, Both) else value


Curves = dict[str, list[Step]]


def bound(config: TransformerConfig) -> float:
    """What the float64 losses may differ by: more with dropout, whose runs are longer."""
    return BOUND_WITH_DROPOUT if any(rates(config).values()) else BOUND


@contextlib.contextmanager
def number_format(dtype: str) -> Iterator[None]:
    """JAX with 64-bit numbers only where they are asked for, as it was before afterwards."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def train_both(
    config: TransformerConfig,
    settings: TrainingSettings,
    batch: Callable[[int], Batch],
    steps: int,
) -> Iterator[Step]:
    """``steps`` steps in the settings' number format; ``batch(step)`` counts from 1.

    It ends early after the first step in which a number is not finite; where that happens on both
    sides alike, training diverged and a UserError says so.
    """
    check_comparable(settings, rates(config).values())
    with number_format(settings.dtype):
        weights = first_weights(config, settings)
        ours, theirs = make_torch(config, settings, weights), make_jax(config, settings, weights)
        for step in range(1, steps + 1):
            found = one_step(ours, theirs, batch(step), step)
            if not any(map(math.isfinite, found.loss + found.gradient_norm)):
                raise diverged(step)
            yield found
            if not found.finite:
                return


def diverged(step: int) -> UserError:
    return UserError(
        f"training diverged on both sides alike at step {step}: loss and gradient are not finite "
        "any more; try a lower peak_lr, a longer warmup_steps or a smaller clip_norm"
    )


def one_step(ours: TorchBackend, theirs: JaxBackend, batch: Batch, step: int) -> Step:
    """Train both by one batch and compare; waits for both."""
    rate = learning_rate(step, ours.settings)
    # JAX first: it returns before it is done and PyTorch works meanwhile.
    right, left = theirs.train_step(batch, step, rate), ours.train_step(batch, step, rate)
    return Step(
        step,
        Both(float(left.loss_sum) / batch.tokens, float(right.loss_sum) / batch.tokens),
        Both(float(left.gradient_norm), float(right.gradient_norm)),
        *weights_apart(ours, theirs),
    )


def weights_apart(ours: TorchBackend, theirs: JaxBackend) -> tuple[float, float, str]:
    """Largest absolute difference, difference relative to all weights, name of the largest."""
    right = dict(to_torch(name, np.asarray(array)) for name, array in theirs.trained.items())
    most, where, squares, whole = -1.0, "", 0.0, 0.0
    for name, tensor in ours.trained.items():
        left = tensor.detach().cpu().numpy()
        apart = np.subtract(left, right[name], dtype=np.float64)
        largest = float(np.max(np.abs(apart)))
        if not largest <= most:  # NaN is the largest of all
            most, where = largest, name
        squares += float(np.vdot(apart, apart))
        whole += float(np.sum(np.square(left, dtype=np.float64)))
    return most, math.sqrt(squares / whole), where


def largest(curve: list[Step], of: str) -> tuple[float, int]:
    """The largest of one of DIFFERENCES over the steps, NaN above all, and its step."""
    worst = max(curve, key=lambda s: _infinite_if_nan(s.difference(of)))
    return worst.difference(of), worst.step


def _infinite_if_nan(number: float) -> float:
    return math.inf if math.isnan(number) else number


def judge(curve: list[Step], most: float) -> tuple[bool, str]:
    """Whether every float64 loss is within ``most``, and that in words."""
    worst, step = largest(curve, "loss")
    found = f"float64 losses of {len(curve)} steps differ by at most {worst:.2g} (bound {most:g})"
    beyond = next((s for s in curve if not s.difference("loss") <= most), None)
    if beyond is None and curve[-1].finite:
        return True, f"PASS: the same training; {found}"
    if beyond is None:
        return False, f"FAIL: one side is not finite any more after step {curve[-1].step}"
    return False, (
        f"FAIL: not the same training; {found}, first beyond it at step {beyond.step}, largest "
        f"at step {step}; weights depart most in {beyond.where}"
    )


def plain(curve: list[Step]) -> list[dict[str, Any]]:
    """The steps as JSON data; a number that is not finite is null."""
    return [
        {
            "step": s.step,
            "loss": {side: _number(value) for side, value in s.loss._asdict().items()},
            "gradient_norm": {k: _number(value) for k, value in s.gradient_norm._asdict().items()},
            "difference": {of: _number(s.difference(of)) for of in DIFFERENCES},
            "largest_in": s.where,
        }
        for s in curve
    ]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
