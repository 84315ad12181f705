"""Recordings that tests make, and those that lie beside the project."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PLACES = (ROOT / "shared", ROOT.parent / "shared")


def recordings() -> Path:
    """The folder of real recordings; a test that needs it is skipped where it is not."""
    given = os.environ.get("SPEECH_RECORDINGS")
    found = [Path(given)] if given else [place / "data/speech" for place in PLACES]
    for place in found:
        if place.is_dir():
            return place
    pytest.skip("real recordings lie in shared/data/speech or where SPEECH_RECORDINGS says")


def sound(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Noise and a tone, (n,) float64 in [-1, 1]."""
    count = round(seconds * rate)
    noise = np.random.default_rng(seed).normal(size=count) * 0.05
    return np.clip(noise + 0.4 * np.sin(2 * np.pi * 440 * np.arange(count) / rate), -1, 1)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000, width: int = 2) -> Path:
    """A WAV file of whole numbers of ``width`` bytes, of samples (n,) or (n, channels)."""
    channels = samples if samples.ndim == 2 else samples[:, None]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw(channels, width))
    return path


def raw(samples: np.ndarray, width: int) -> bytes:
    whole = np.round(samples * (2.0 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        return (whole + 128).astype(np.uint8).tobytes()
    return _bytes(whole, width)


def _bytes(whole: np.ndarray, width: int) -> bytes:
    wide = whole.astype("<i8").reshape(-1, 1).view(np.uint8)
    return wide[:, :width].tobytes()
