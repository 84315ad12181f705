"""Log-mel features a second time: the right ones, and what every slip of a front end does."""

from types import SimpleNamespace

import numpy as np
import pytest
from messages import saying
from recording_cases import sound, write_wav

from parity.sound.comparison import Sound, compared, heard
from parity.sound.front_ends import BOUND, SLIPS, FrontEnd, explanations
from training_recipe.sound.features import log_mel
from transformer_spec import UserError


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Two seconds that begin loud, and fade to the quietest that there is."""
    x = sound(2.0)
    return x * np.geomspace(1, 1e-4, len(x))


@pytest.mark.parametrize("bins", [80, 128])
def test_the_features_of_recordings_are_these(samples, bins):
    right = FrontEnd().features(samples, bins)
    assert right.shape == (3000, bins)
    assert np.abs(right - log_mel(samples, bins, np.float64)).max() <= 1e-11


@pytest.mark.parametrize("name", SLIPS)
def test_every_slip_is_seen_and_named(samples, name):
    wrong = SLIPS[name].features(samples, 80)
    assert np.abs(wrong - log_mel(samples, 80, np.float64)).max() > 10 * BOUND
    assert [found for found, _ in explanations(samples, wrong.astype(np.float32))] == [name]


def test_right_features_have_no_explanation(samples):
    assert not list(explanations(samples, log_mel(samples, 80)))


def config(**changes) -> SimpleNamespace:
    return SimpleNamespace(**({"max_source_length": 1500, "feature_dim": 5} | changes))


def test_thirty_seconds_of_a_file_are_heard(tmp_path):
    x = sound(31.0)
    found = heard(write_wav(tmp_path / "long.wav", x), config())
    assert found.samples.shape == (480000,) and found.features.shape == (3000, 5)
    assert np.abs(found.features - log_mel(found.samples, 5)).max() <= 1e-6


def test_a_model_of_other_windows_is_refused(tmp_path):
    with pytest.raises(UserError, check=saying("--audio", "3000 frames", "takes 22", "--features")):
        heard(tmp_path / "none.wav", config(max_source_length=11))


def test_a_file_of_features_is_one_more_front_end(samples, tmp_path):
    right = Sound(samples, log_mel(samples, 5, np.float64))
    sides = (SimpleNamespace(given=str(tmp_path)), SimpleNamespace(given=str(tmp_path)))
    found = compared(right, sides, right.features.astype(np.float32))
    assert [row.passed for row in found.rows] == [True] and not found.causes
    wrong = compared(right, sides, SLIPS["magnitudes for powers"].features(samples, 5))
    assert [row.passed for row in wrong.rows] == [False]
    assert wrong.causes[0].in_words == "features of the file: magnitudes for powers"
    other = compared(right, sides, np.zeros((3000, 7)))
    assert not other.rows[0].passed and "[3000, 7] for [3000, 5]" in other.causes[0].in_words
    none = compared(right, sides, None)
    assert not none.rows and "no other front end is compared" in none.notes[0]
