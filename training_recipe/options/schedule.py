"""The learning rate of each step, in double precision, the same for both backends.

Every schedule rises linearly to ``peak_lr`` over ``warmup_steps`` and then

- ``inverse_sqrt``: falls with the square root of the step (Vaswani et al. 2017, section 5.3;
  their factor D^-0.5 is written as the peak that it leads to);
- ``cosine``: follows half a cosine to zero (Loshchilov & Hutter 2017, equation 5, one period);
- ``linear``: falls on a straight line to zero;
- ``constant``: stays.

Zero is reached one step after the last, so that every step learns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training_recipe.options.settings import TrainingSettings


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """The learning rate of ``step``, which counts from 1."""
    if step < 1:
        raise ValueError(f"step is {step}; steps count from 1")
    warmup = settings.warmup_steps
    if step <= warmup:
        return settings.peak_lr * (step / warmup)
    return settings.peak_lr * SCHEDULES[settings.schedule](step, warmup, settings.steps)


def ema_decay(step: int, settings: TrainingSettings) -> float:
    """The decay of the moving average of the weights at ``step``: (1 + step) / (10 + step) at most.

    So the first, untrained weights are soon forgotten, as in TensorFlow's ExponentialMovingAverage
    with num_updates and in Marian.
    """
    return min(settings.ema_decay, (1 + step) / (10 + step))


def _inverse_sqrt(step: int, warmup: int, steps: int) -> float:
    return math.sqrt(max(warmup, 1) / step)


def _cosine(step: int, warmup: int, steps: int) -> float:
    return 0.5 * (1.0 - math.cos(math.pi * _linear(step, warmup, steps)))


def _linear(step: int, warmup: int, steps: int) -> float:
    return max(0.0, (steps + 1 - step) / (steps + 1 - warmup)) if steps >= warmup else 0.0


def _constant(step: int, warmup: int, steps: int) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "inverse_sqrt": _inverse_sqrt,
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
}
