"""A model and batches as small as training can have them, for tests that run both backends."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from training_cases import keep_programs

from convert.checkpoints import Checkpoint
from flax_transformer.step import make_backend as make_jax
from parity.twins.cases import config_of
from training_recipe.batching.batches import Batch
from training_recipe.options.schedule import learning_rate
from training_recipe.options.settings import TrainingSettings
from twinformer.training.states import first_state

make_torch = pytest.importorskip("torch_transformer.step").make_backend

keep_programs()


def from_weights(make: Callable) -> Callable:
    """``make_backend`` of weights alone; without any, of those that the settings begin with."""

    def made(config, settings, weights=None):
        state = first_state(config, settings) if weights is None else Checkpoint(weights)
        return make(config, settings, state)

    return made


MAKERS = {"torch": from_weights(make_torch), "jax": from_weights(make_jax)}
CONFIG = config_of(
    {"num_encoder_layers": 1, "num_decoder_layers": 1, "norm_position": "pre", "dropout": 0.0}
    | {"tied_embeddings": "target_output", "output_bias": "frozen"}
)
SETTINGS = TrainingSettings(
    dtype="float64", device="cpu", warmup_steps=4, peak_lr=3e-3, weight_decay=0.1, clip_norm=0.5
)


def batch(first: int, rows: int, source: int = 7, target: int = 5) -> Batch:
    """Rows ``first``, ``first + 1``, ... of an endless text, padded to the lengths given."""
    sources, targets = np.zeros((2, rows, max(source, target)), np.int32)
    for row in range(rows):
        draw = np.random.default_rng(first + row)
        lengths = 2 + (first + row) % 4, 1 + (first + row) % 7 % 4
        sources[row, : lengths[0]] = draw.integers(4, 23, 5)[: lengths[0]]
        targets[row, : lengths[1]] = draw.integers(4, 19, 5)[: lengths[1]]
    target_out = targets[:, :target]
    start = np.full((rows, 1), CONFIG.decoder_start_id, np.int32)
    target_in = np.concatenate([start, target_out[:, :-1]], 1)
    return Batch(sources[:, :source].copy(), target_in, target_out.copy())


def changed(**changes) -> TrainingSettings:
    return dataclasses.replace(SETTINGS, **changes)


def nth(number: int) -> Batch:
    """Three other rows for every number."""
    return batch(3 * number, 3)


def train(
    backend,
    settings: TrainingSettings,
    first: int,
    last: int,
    choose: Callable[[int], Batch] = nth,
) -> list[float]:
    """Steps ``first`` to ``last`` of ``accumulate`` batches each; each step's loss per token."""
    losses, count = [], settings.accumulate
    for step in range(first, last + 1):
        parts = [choose(count * step + part) for part in range(count)]
        rate = learning_rate(step, settings)
        result = backend.train_step(parts, step, rate)
        losses.append(float(result.loss_sum) / result.tokens)
    return losses


def largest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)
