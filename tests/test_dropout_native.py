"""Native dropout: each framework's own masks, decided by seed and step alone."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from test_training_backends import EXACT, MAKERS, batches

import flax_transformer.dropout as flax_side
import torch_transformer.dropout as torch_side
from parity.cases import config_of
from training_recipe.schedule import learning_rate
from training_recipe.settings import TrainingSettings
from transformer_spec import UserError

NATIVE = dataclasses.replace(EXACT, dtype="float32", dropout_rng="native")
ONE_LAYER = {"num_encoder_layers": 1, "num_decoder_layers": 1}
CONFIG = config_of(
    {"dropout": 0.2, "attention_dropout": 0.1, "activation_dropout": 0.1} | ONE_LAYER
)


def train(backend, settings: TrainingSettings, first: int, last: int) -> list[float]:
    """The loss of each step, all of them on one batch."""
    batch = batches(CONFIG)[0]
    steps = range(first, last + 1)
    done = [backend.train_step(batch, step, learning_rate(step, settings)) for step in steps]
    return [float(result.loss_sum) for result in done]


def dropped(side: str, key: int, sites: int, rate: float = 0.25) -> np.ndarray:
    """The last of some sites of one step, all of them ones before: (100, 70)."""
    source = {"torch": torch_side, "jax": flax_side}[side].SOURCES["native"](key)
    ones = torch.ones(100, 70) if side == "torch" else jnp.ones((100, 70))
    return np.asarray([source(ones, rate) for _ in range(sites)][-1])


@pytest.mark.parametrize("side", MAKERS)
def test_key_and_site_decide(side: str) -> None:
    first = dropped(side, 2**32 - 1, 1)
    assert np.array_equal(first, dropped(side, 2**32 - 1, 1))
    assert not np.array_equal(first, dropped(side, 2**32 - 1, 2))
    assert not np.array_equal(first, dropped(side, 1, 1))


@pytest.mark.parametrize("side", MAKERS)
def test_rate_and_scale(side: str) -> None:
    found = dropped(side, 3, 1)
    assert set(np.unique(found)) == {0, np.float32(1 / 0.75)}
    assert abs((found == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / found.size)


@pytest.mark.parametrize("name", MAKERS)
def test_resuming_is_bit_for_bit(tmp_path, name: str) -> None:
    backend = MAKERS[name](CONFIG, NATIVE)
    train(backend, NATIVE, 1, 3)
    backend.save(tmp_path)
    again = MAKERS[name](CONFIG, NATIVE)
    again.restore(tmp_path)
    torch.rand(5)  # what else draws from the generator changes nothing
    assert train(again, NATIVE, 4, 6) == train(backend, NATIVE, 4, 6)
    left, right = again.checkpoint().weights, backend.checkpoint().weights
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_another_run_than_the_portable_one(name: str) -> None:
    portable = dataclasses.replace(NATIVE, dropout_rng="portable")
    ours, theirs = MAKERS[name](CONFIG, NATIVE), MAKERS[name](CONFIG, portable)
    assert train(ours, NATIVE, 1, 1) != train(theirs, portable, 1, 1)


def test_the_setting_names_what_is_allowed() -> None:
    assert TrainingSettings().dropout_rng == "portable"
    with pytest.raises(UserError, match="dropout_rng: 'own' is not one of portable, native"):
        TrainingSettings(dropout_rng="own")
