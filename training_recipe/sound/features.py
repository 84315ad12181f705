"""What a model hears: the log-mel features of samples, in NumPy.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2, and
the numbers of the program that was published with it. Samples are mono, 16,000 a second. A frame is
10 ms; a window is 30 s. Filters are triangles on Slaney's mel scale, each of one area.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

RATE, WINDOW, HOP = 16000, 400, 160  # samples: a second, under a Fourier transform, between two
FRAMES = 3000  # of a window
SAMPLES = FRAMES * HOP
FRAMES_A_SECOND = RATE // HOP
FLOOR, RANGE = -10.0, 8.0  # log10 of the least power that is told apart, and below the loudest
BLOCK = 1000  # frames that are transformed at once
LINEAR, BREAK, STEP = 200 / 3, 1000.0, np.log(6.4) / 27  # Slaney: Hz a mel, Hz, log Hz a mel


def _mel(hertz: Any) -> np.ndarray:
    linear = np.asarray(hertz, np.float64) / LINEAR
    above = BREAK / LINEAR + np.log(np.maximum(hertz, BREAK) / BREAK) / STEP
    return np.where(np.asarray(hertz) >= BREAK, above, linear)


def _hertz(mel: np.ndarray) -> np.ndarray:
    above = BREAK * np.exp((mel - BREAK / LINEAR) * STEP)
    return np.where(mel >= BREAK / LINEAR, above, mel * LINEAR)


@functools.cache
def mel_filters(bins: int) -> np.ndarray:
    """(201, bins) float64: how much of each frequency, 0 to 8000 Hz, belongs to each bin.

    Triangles on Slaney's mel scale, each of one area.
    """
    corners = _hertz(np.linspace(_mel(0.0), _mel(RATE / 2), bins + 2))
    frequencies = np.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies - left) / (middle - left)
    falling = (right - frequencies) / (right - middle)
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (right - left))


@functools.cache
def _hann() -> np.ndarray:
    """The periodic window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def log_powers(padded: np.ndarray, bins: int) -> np.ndarray:
    """(frames, bins) float64: log10 of the power, at least 1e-10, that each bin holds.

    ``padded`` has half a transform's samples before the middle of the first frame, and after that
    of the last.
    """
    count = (len(padded) - WINDOW) // HOP + 1
    if count < 1:
        return np.empty((0, bins))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    found = np.empty((count, bins))
    for first in range(0, count, BLOCK):
        spectrum = np.fft.rfft(frames[first : first + BLOCK] * _hann())
        power = (spectrum.real**2 + spectrum.imag**2) @ mel_filters(bins)
        found[first : first + BLOCK] = np.log10(np.maximum(power, 10.0**FLOOR))
    return found


def scaled(powers: np.ndarray, loudest: float, dtype: Any = np.float32) -> np.ndarray:
    """The features of ``log_powers``, of which ``loudest`` is the largest of the recording."""
    return ((np.maximum(powers, loudest - RANGE) + 4) / 4).astype(dtype)


def log_mel(samples: np.ndarray, bins: int = 80, dtype: Any = np.float32) -> np.ndarray:
    """(3000, bins): features of one window; silence is added, or what is too long cut off.

    ``samples`` (n,) are mono, in [-1, 1], 16,000 a second. Radford et al. 2022, section 2.2.
    """
    heard = np.asarray(samples[:SAMPLES], np.float64)
    padded = np.pad(np.pad(heard, (0, SAMPLES - len(heard))), WINDOW // 2, mode="reflect")
    powers = log_powers(padded, bins)[:FRAMES]
    return scaled(powers, float(powers.max()), dtype)


def frames_of(samples: int) -> int:
    """How many frames hold something of so many samples."""
    return samples // HOP


def streamed_powers(blocks: Iterable[np.ndarray], bins: int) -> Iterator[np.ndarray]:
    """``log_powers`` of samples that come in blocks and are followed by silence, a part at a time.

    All frames together are those which hold a sample, two or three more than ``frames_of`` says.
    """
    half, begun = WINDOW // 2, False
    held = np.empty(0)
    for block in blocks:
        held = np.concatenate([held, np.asarray(block, np.float64)])
        if not begun and len(held) > half:
            held, begun = np.concatenate([held[half:0:-1], held]), True
        if begun and len(held) >= WINDOW:
            powers = log_powers(held, bins)
            held = held[len(powers) * HOP :]
            yield powers
    if not begun:
        held = np.pad(np.pad(held, (0, WINDOW)), (half, 0), mode="reflect")
    yield log_powers(np.pad(held, (0, WINDOW)), bins)
