"""Other rates: tones keep their place, what 16 kHz cannot hold is gone, blocks change nothing."""

import numpy as np
import pytest
from recording_cases import sound

from training_recipe.sound.resampling import Resampler


def resampled(samples: np.ndarray, rate: int, sizes: tuple[int, ...] = ()) -> np.ndarray:
    resampler, blocks = Resampler(rate), np.split(samples, np.cumsum(sizes))
    return np.concatenate([*map(resampler.push, blocks), resampler.finish()])


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 44056])
def test_a_tone_is_the_same_tone(rate):
    found = resampled(np.sin(2 * np.pi * 3000 * np.arange(rate) / rate), rate)
    assert len(found) == 16000
    expected = np.sin(2 * np.pi * 3000 * np.arange(16000) / 16000)
    assert np.abs(found - expected)[500:-500].max() < 1e-7


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_what_16_khz_cannot_hold_is_gone(rate):
    found = resampled(np.sin(2 * np.pi * 9000 * np.arange(rate) / rate), rate)
    assert np.abs(found)[500:-500].max() < 1e-6


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_blocks_change_nothing(rate):
    heard = sound(0.31, rate)
    whole = resampled(heard, rate)
    assert len(whole) == -(-len(heard) * 16000 // rate)
    for sizes in ((1, 1, 1), (0, 700, 13), (100, 200, 300, 400)):
        assert np.abs(resampled(heard, rate, sizes) - whole).max() < 1e-14


def test_nothing_and_one_sample():
    assert len(resampled(np.zeros(0), 44100)) == 0
    assert len(resampled(np.ones(1), 44100)) == 1
