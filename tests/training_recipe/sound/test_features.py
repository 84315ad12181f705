"""Log-mel features: against transformers, and in parts against the whole."""

import time

import numpy as np
import pytest
from recording_cases import sound

from training_recipe.sound.features import (
    FRAMES,
    SAMPLES,
    frames_of,
    log_mel,
    log_powers,
    mel_filters,
    scaled,
    streamed_powers,
)


@pytest.mark.parametrize("bins", [80, 128])
def test_filters_and_features_are_those_of_transformers(bins):
    feature_extraction = pytest.importorskip("transformers").WhisperFeatureExtractor
    theirs = feature_extraction(feature_size=bins)
    assert np.abs(mel_filters(bins) - theirs.mel_filters).max() < 1e-15
    heard = sound(3.7)
    padded = np.pad(heard, (0, SAMPLES - len(heard)))
    # Its way without PyTorch, float64 inside, whose result is float32.
    expected = theirs._np_extract_fbank_features(padded[None], "cpu")[0].T
    found = log_mel(heard, bins, np.float64)
    assert found.shape == (FRAMES, bins) and np.abs(found - expected).max() < 1.2e-7


def test_a_tone_is_in_the_bins_around_it():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    middle = log_powers(tone, 80)[50]
    share = mel_filters(80)[25]  # of 1000 Hz, which is the 25th frequency
    assert set(np.flatnonzero(middle > middle.max() - 1)) >= set(np.flatnonzero(share > 1e-3))
    # Half of a Hann window's sum, 100, is the amplitude of the spectrum there.
    assert middle[np.argmax(share)] == pytest.approx(
        np.log10(100**2 * share.max() + 50**2 * mel_filters(80)[[24, 26], np.argmax(share)].sum())
    )


def test_silence_too_short_and_too_long():
    assert np.array_equal(log_mel(np.zeros(16000)), np.full((FRAMES, 80), -1.5, np.float32))
    assert np.array_equal(log_mel(np.zeros(0)), np.full((FRAMES, 80), -1.5, np.float32))
    heard = sound(30.5)
    assert np.array_equal(log_mel(heard), log_mel(heard[:SAMPLES]))
    assert log_mel(heard).dtype == np.float32


@pytest.mark.parametrize("seconds", [0.005, 0.0125, 0.02, 1.23, 2.0])
@pytest.mark.parametrize("size", [7, 1601, 10**6])
def test_parts_are_those_of_the_whole(seconds, size):
    heard = sound(seconds)
    blocks = [heard[start : start + size] for start in range(0, len(heard), size)]
    powers = np.concatenate(list(streamed_powers(blocks, 80)))
    assert len(powers) > frames_of(len(heard))
    whole = log_mel(heard, 80, np.float64)
    found = scaled(powers, float(powers.max()), np.float64)
    assert np.abs(found - whole[: len(found)]).max() < 1e-12
    assert np.ptp(whole[len(found) :]) == 0.0  # behind it there is silence


def test_a_window_takes_a_fraction_of_a_second():
    heard = sound(30)
    log_mel(heard)
    began = time.process_time()
    log_mel(heard)
    assert time.process_time() - began < 0.3
