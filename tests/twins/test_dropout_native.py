"""Native dropout: each framework's own masks, decided by seed and step alone."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import small_training
import torch
from messages import saying
from small_training import MAKERS, SETTINGS, batch

import flax_transformer.dropout as flax_side
import flax_transformer.precision as flax_precision
import torch_transformer.dropout as torch_side
import torch_transformer.precision as torch_precision
from parity.twins.cases import config_of
from training_recipe.options.settings import TrainingSettings
from transformer_spec import UserError
from twinformer.training.states import read_state, save_state

NATIVE = dataclasses.replace(SETTINGS, dtype="float32", dropout_rng="native")
ONE_LAYER = {"num_encoder_layers": 1, "num_decoder_layers": 1}
CONFIG = config_of(
    {"dropout": 0.2, "attention_dropout": 0.1, "activation_dropout": 0.1} | ONE_LAYER
)
SIDES = {"torch": torch_side, "jax": flax_side}
PRODUCTS = {
    "torch": lambda: torch_precision.products_in("bfloat16", "cpu"),
    "jax": lambda: flax_precision.products_in("bfloat16"),
}
ONE_BATCH = batch(0, 5)


def train(backend, settings: TrainingSettings, first: int, last: int) -> list[float]:
    """The loss of each step, all of them on one batch."""
    return small_training.train(backend, settings, first, last, lambda _: ONE_BATCH)


def ones(side: str, dtype: str = "float32"):
    """(100, 70) in the framework's own type."""
    if side == "torch":
        return torch.ones(100, 70, dtype=getattr(torch, dtype))
    return jnp.ones((100, 70), dtype)


def dropped(side: str, key: int, sites: int, rate: float = 0.25) -> np.ndarray:
    """The last of some sites of one step, all of them ones before: (100, 70)."""
    source = SIDES[side].SOURCES["native"](key)
    return np.asarray([source(ones(side), rate) for _ in range(sites)][-1])


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


@pytest.mark.parametrize("rng", ["portable", "native"])
@pytest.mark.parametrize("side", MAKERS)
def test_what_is_narrow_is_scaled_in_float32(side: str, rng: str) -> None:
    """1/(1 - rate) in bfloat16 would be another number, and the residual sum is in float32."""
    framework, source = SIDES[side], SIDES[side].SOURCES[rng]
    with PRODUCTS[side]():
        found = [framework.drop(ones(side, x), 0.3, source(5)) for x in ("bfloat16", "float32")]
    for x in found:
        assert str(x.dtype).endswith("float32")
        assert set(np.unique(np.asarray(x))) == {0, np.float32(1 / 0.7)}
    assert framework.drop(ones(side, "bfloat16"), 0.3, None).dtype != found[0].dtype


@pytest.mark.parametrize("rng", ["portable", "native"])
@pytest.mark.parametrize("side", MAKERS)
def test_the_mask_is_the_one_that_is_applied(side: str, rng: str) -> None:
    x, source = ones(side), SIDES[side].SOURCES[rng](9)
    masks = [np.asarray(source.keep_mask(x, 0.3)) for _ in range(2)]
    source = SIDES[side].SOURCES[rng](9)
    for mask in masks:
        assert np.array_equal(mask, np.asarray(source(x, 0.3)) > 0)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", MAKERS)
def test_resuming_is_bit_for_bit(tmp_path, name: str) -> None:
    backend = MAKERS[name](CONFIG, NATIVE)
    train(backend, NATIVE, 1, 3)
    save_state(backend, tmp_path)
    again = MAKERS[name](CONFIG, NATIVE)
    again.restore(read_state(tmp_path))
    torch.rand(5)  # what else draws from the generator changes nothing
    assert train(again, NATIVE, 4, 6) == train(backend, NATIVE, 4, 6)
    left, right = again.state().weights, backend.state().weights
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", MAKERS)
def test_it_is_another_run_than_the_portable_one(name: str) -> None:
    portable = dataclasses.replace(NATIVE, dropout_rng="portable")
    ours, theirs = MAKERS[name](CONFIG, NATIVE), MAKERS[name](CONFIG, portable)
    assert train(ours, NATIVE, 1, 1) != train(theirs, portable, 1, 1)


def test_the_setting_names_what_is_allowed() -> None:
    assert TrainingSettings().dropout_rng == "portable"
    with pytest.raises(UserError, check=saying("dropout_rng", "'own'", "portable, native")):
        TrainingSettings(dropout_rng="own")
