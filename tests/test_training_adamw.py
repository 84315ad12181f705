"""One optimizer step by hand: clipping by the global norm, bias corrections, what decays."""

import numpy as np
import pytest
from small_training import CONFIG, MAKERS, batch, changed

RATE = 1e-3
SETTINGS = {
    "clipped, decay": {"clip_norm": 0.25, "weight_decay": 0.1},
    "not clipped, Adam without decay": {"clip_norm": 0.0, "weight_decay": 0.0},
    "a bound never reached": {"clip_norm": 1e6, "weight_decay": 0.1},
}


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
