"""Training on both backends, step by step, from the same weights and the same batches."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_transformer.step import JaxBackend
from flax_transformer.step import make_backend as make_jax
from parity.training.task import check_comparable, rates
from torch_transformer.step import TorchBackend
from torch_transformer.step import make_backend as make_torch
from training_recipe.backend import Checkpoint
from training_recipe.batching.batches import Batch
from training_recipe.first_weights import first_weights
from training_recipe.options.schedule import learning_rate
from training_recipe.options.settings import TrainingSettings
from transformer_spec import TransformerConfig, UserError, to_torch

# The largest difference of the loss per token that rounding in float64 may cause.
BOUND, BOUND_WITH_DROPOUT = 1e-9, 1e-8
DIFFERENCES = ("loss", "gradient_norm", "weight", "weight_relative")
AVERAGE = "average"


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
    and ``weight_relative`` the Euclidean norm of all differences over that of all weights;
    ``average`` is the largest difference of an averaged weight, where there are any.
    """

    step: int
    loss: Both
    gradient_norm: Both
    weight: float
    weight_relative: float
    where: str
    average: float | None = None

    @property
    def finite(self) -> bool:
        numbers = self.weight, self.weight_relative, self.average or 0.0
        return self.loss.finite and self.gradient_norm.finite and all(map(math.isfinite, numbers))

    def difference(self, of: str) -> float:
        """One of DIFFERENCES, or AVERAGE."""
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
    batches: Callable[[int], Sequence[Batch]],
    steps: int,
) -> Iterator[Step]:
    """``steps`` steps in the settings' number format; ``batches(step)``, from 1, are one step's.

    It ends early after the first step in which a number is not finite; where that happens on both
    sides alike, training diverged and a UserError says so.
    """
    check_comparable(settings, rates(config).values())
    with number_format(settings.dtype):
        state = Checkpoint(first_weights(config, settings))
        ours, theirs = make_torch(config, settings, state), make_jax(config, settings, state)
        for step in range(1, steps + 1):
            found = one_step(ours, theirs, batches(step), step)
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


def one_step(ours: TorchBackend, theirs: JaxBackend, batches: Sequence[Batch], step: int) -> Step:
    """Train both by one step's batches and compare; waits for both."""
    rate = learning_rate(step, ours.settings)
    tokens = sum(batch.tokens for batch in batches)
    # JAX first: it returns before it is done and PyTorch works meanwhile.
    right = theirs.train_step(batches, step, rate)
    left = ours.train_step(batches, step, rate)
    return Step(
        step,
        Both(float(left.loss_sum) / tokens, float(right.loss_sum) / tokens),
        Both(float(left.gradient_norm), float(right.gradient_norm)),
        *weights_apart(ours, theirs),
        averages_apart(ours, theirs) if ours.settings.ema_decay else None,
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


def averages_apart(ours: TorchBackend, theirs: JaxBackend) -> float:
    """Largest absolute difference of the weights that are saved for use."""
    left, right = ours.state().weights, theirs.state().weights
    return float(np.max([np.max(np.abs(left[name] - right[name])) for name in ours.trained]))


def measured(curve: list[Step]) -> tuple[str, ...]:
    """DIFFERENCES, and AVERAGE where weights are averaged."""
    return DIFFERENCES if curve[0].average is None else (*DIFFERENCES, AVERAGE)


def largest(curve: list[Step], of: str) -> tuple[float, int]:
    """The largest of one of ``measured`` over the steps, NaN above all, and its step."""
    worst = max(curve, key=lambda s: _infinite_if_nan(s.difference(of)))
    return worst.difference(of), worst.step


def _infinite_if_nan(number: float) -> float:
    return math.inf if math.isnan(number) else number


def judge(curve: list[Step], most: float) -> tuple[bool, str]:
    """Whether every float64 loss is within ``most``, and that in words.

    Averaged weights must not be farther apart than the weights they are made of, by ``most``.
    """
    worst, step = largest(curve, "loss")
    found = f"float64 losses of {len(curve)} steps differ by at most {worst:.2g} (bound {most:g})"
    beyond = next((s for s in curve if not s.difference("loss") <= most), None)
    if beyond is not None:
        return False, (
            f"FAIL: not the same training; {found}, first beyond it at step {beyond.step}, largest "
            f"at step {step}; weights depart most in {beyond.where}"
        )
    if not curve[-1].finite:
        return False, f"FAIL: one side is not finite any more after step {curve[-1].step}"
    strayed = strayed_average(curve, most)
    if strayed is not None:
        return False, (
            f"FAIL: not the same averages; at step {strayed.step} they are {strayed.average:.2g} "
            f"apart, farther than the weights were up to then; {found}"
        )
    return True, f"PASS: the same training; {found}"


def strayed_average(curve: list[Step], most: float) -> Step | None:
    """The first step whose averages are farther apart than any weights up to it, by ``most``.

    An average lies among its weights, so that it differs by no more than they do.
    """
    weights = 0.0
    for step in curve:
        weights = max(weights, step.weight)
        if step.average is not None and not step.average <= weights + most:
            return step
    return None


def plain(curve: list[Step]) -> list[dict[str, Any]]:
    """The steps as JSON data; a number that is not finite is null."""
    return [
        {
            "step": s.step,
            "loss": {side: _number(value) for side, value in s.loss._asdict().items()},
            "gradient_norm": {k: _number(value) for k, value in s.gradient_norm._asdict().items()},
            "difference": {of: _number(s.difference(of)) for of in measured(curve)},
            "largest_in": s.where,
        }
        for s in curve
    ]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
