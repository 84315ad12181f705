"""One optimizer step by hand: clipping by the global norm, bias corrections, what decays."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_training import CONFIG, MAKERS, batch, changed

from flax_transformer.adamw import adam_state, adamw, correction
from transformer_spec import trained_names

RATE = 1e-3
SETTINGS = {
    "clipped, decay": {"clip_norm": 0.25, "weight_decay": 0.1},
    "not clipped, Adam without decay": {"clip_norm": 0.0, "weight_decay": 0.0},
    "a bound never reached": {"clip_norm": 1e6, "weight_decay": 0.1},
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("case", SETTINGS)
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.usefixtures("float64")
def test_the_first_step(name: str, case: str) -> None:
    settings = changed(**SETTINGS[case])
    backend = MAKERS[name](CONFIG, settings)
    before = backend.state().weights
    norm = float(backend.train_step([batch(0, 3)], 1, RATE).gradient_norm)
    after = backend.state()
    beta1, beta2 = settings.adam_beta1, settings.adam_beta2
    gradients = {n: moment / (1 - beta1) for n, moment in after.first_moments.items()}
    length = np.sqrt(sum(np.square(g).sum() for g in gradients.values()))
    expected = min(norm, settings.clip_norm or norm)
    assert length == pytest.approx(expected, rel=1e-12)
    assert (norm > 0.25 + 1e-3) and (expected == norm or expected == 0.25)
    for weight, gradient in gradients.items():
        second = after.second_moments[weight]
        np.testing.assert_allclose(second, (1 - beta2) * gradient**2, rtol=1e-12, atol=1e-30)
        decay = RATE * settings.weight_decay if gradient.ndim > 1 else 0.0
        move = RATE * gradient / (np.sqrt(second / (1 - beta2)) + settings.adam_eps)
        by_hand = before[weight] * (1 - decay) - move
        np.testing.assert_allclose(after.weights[weight], by_hand, rtol=0, atol=1e-15)


@pytest.mark.usefixtures("float64")
def test_it_is_what_optax_computes() -> None:
    """The chain that a user of optax would write, ten steps of it, gradients clipped or not."""
    settings = changed(clip_norm=0.5, weight_decay=0.1)
    draw = np.random.default_rng(0)
    betas = settings.adam_beta1, settings.adam_beta2
    ours, theirs = adamw(0.5, 0.1, *betas, settings.adam_eps), optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(
            RATE, *betas, settings.adam_eps, weight_decay=0.1,
            mask={"kernel": True, "bias": False},
        ),
    )  # fmt: skip
    params = {
        "kernel": jnp.asarray(draw.normal(size=(3, 5))),
        "bias": jnp.asarray(draw.normal(size=5)),
    }
    other, state, their_state = params, ours.init(params), theirs.init(params)
    for scale in (1.0, 0.01) * 5:
        gradients = {name: scale * draw.normal(size=p.shape) for name, p in params.items()}
        updates, state = ours.update(gradients, state, params, learning_rate=RATE)
        params = optax.apply_updates(params, updates)
        updates, their_state = theirs.update(gradients, their_state, other)
        other = optax.apply_updates(other, updates)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-13)
    jax.tree.map(same, params, other)
    adam = adam_state(state)
    assert isinstance(adam, optax.ScaleByAdamState) and adam.count == 10
    jax.tree.map(same, adam, their_state[1][0])


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.98, 0.999])
def test_bias_corrections_are_right_to_the_last_bits_of_float32(decay: float) -> None:
    """Those of optax are off by 2e-5 at 0.999."""
    count = np.arange(1, 5000)
    found = np.asarray(correction(decay, jnp.asarray(count, jnp.int32), jnp.float32), np.float64)
    assert np.abs(found / (1 - decay**count) - 1).max() <= 4e-7


@pytest.mark.usefixtures("float64")
def test_a_weight_that_the_loss_does_not_depend_on() -> None:
    """Without decoder layers the encoder has no gradient: it decays, and has moments of zero."""
    config = dataclasses.replace(CONFIG, num_decoder_layers=0)
    settings = changed(clip_norm=1.0, weight_decay=0.1)
    states = []
    for make in MAKERS.values():
        backend = make(config, settings)
        for step in (1, 2):
            backend.train_step([batch(0, 3)], step, RATE)
        states.append(backend.state())
        backend.restore(states[-1])
    ours, theirs = states
    assert [*ours.first_moments] == [*theirs.first_moments] == trained_names(config)
    for name, weight in ours.weights.items():
        np.testing.assert_allclose(weight, theirs.weights[name], rtol=0, atol=1e-14)
