"""Windows of recordings, short and long, and the memory that a long one takes."""

import numpy as np
import pytest
from recording_cases import sound, write_wav

from training_recipe.sound.features import FLOOR, FRAMES, SAMPLES, log_mel, scaled
from training_recipe.sound.features import log_powers as powers_of
from training_recipe.sound.recordings import Recording
from transformer_spec import UserError


def whole_features(samples: np.ndarray) -> np.ndarray:
    """Those of all of a recording and 30 s of silence, which are then cut off."""
    padded = np.pad(np.pad(samples, (0, SAMPLES)), 200, mode="reflect")
    powers = powers_of(padded, 80)
    return scaled(powers, float(powers.max()), np.float64)[: len(samples) // 160]


def test_a_short_one_is_followed_by_silence(tmp_path):
    path = write_wav(tmp_path / "a.wav", sound(4.2), width=4)
    recording = Recording(path, 80, np.float64)
    assert (recording.is_long, recording.frames, recording.seconds) == (False, 420, 4.2)
    window, frames = recording.window(0)
    assert frames == 420 and np.abs(window - log_mel(sound(4.2), 80, np.float64)).max() < 1e-7
    later, frames = recording.window(400)
    assert frames == 20 and np.array_equal(later[:2600], window[400:])
    assert np.array_equal(later[2600:], np.repeat(window[-1:], 400, 0))
    assert Recording(path, 80).window(0)[0].dtype == np.float32


def test_a_long_one_has_the_features_of_all_of_it(tmp_path):
    samples = np.concatenate([sound(31, seed=1) / 100, sound(6, seed=2)])
    recording = Recording(write_wav(tmp_path / "a.wav", samples, width=4), 80, np.float64)
    whole = whole_features(samples)
    assert recording.is_long and recording.frames == len(whole) == 3700
    for seek in (0, 1234, 3690, 500):
        window, frames = recording.window(seek)
        assert frames == min(FRAMES, 3700 - seek)
        assert np.abs(window[:frames] - whole[seek : seek + FRAMES]).max() < 1e-5
        assert not window[frames:].any()


def test_silence_and_nothing(tmp_path):
    recording = Recording(write_wav(tmp_path / "a.wav", np.zeros(16000)), 80)
    assert np.array_equal(recording.window(0)[0], np.full((FRAMES, 80), (FLOOR + 4) / 4, "f4"))
    with pytest.raises(UserError, match="b.wav holds no sound"):
        Recording(write_wav(tmp_path / "b.wav", np.zeros(0)), 80)
