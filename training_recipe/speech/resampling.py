"""Samples of any rate as samples of 16 kHz: a polyphase filter, in blocks of any size.

Smith, "Digital Audio Resampling", section "Theory of Ideal Bandlimited Interpolation". The filter
is a sinc under a Kaiser window; what lies above half of the lower rate is taken away by 100 dB and
more.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np

from training_recipe.speech.features import RATE

CROSSINGS = 64  # of the sinc, on each side
ROLLOFF = 0.9476  # of half the lower rate: where half of the amplitude is left
SHARPNESS = 14.77  # the Kaiser window's beta
LOWEST, HIGHEST = 1000, 400_000  # rates in Hz


class Resampler:
    """Takes blocks of samples at ``rate`` and gives blocks at 16 kHz.

    ``held`` are the inputs that outputs may still need, the first of which has number ``first``;
    before number 0 there is silence.
    """

    def __init__(self, rate: int) -> None:
        common = gcd(rate, RATE)
        self.up, self.down = RATE // common, rate // common
        self.half = ceil(CROSSINGS * max(1.0, self.down / self.up))
        self.filters = self._filters()
        self.held = np.zeros(self.half - 1)
        self.first, self.seen, self.written = -(self.half - 1), 0, 0

    def _filters(self) -> np.ndarray:
        """(up, 2 half): the weights of the inputs around an output, by its place between two."""
        scale = min(1.0, self.up / self.down)
        inputs = np.arange(1 - self.half, self.half + 1)
        between = (np.arange(self.up) / self.up)[:, None]
        apart = between - inputs
        ideal = scale * ROLLOFF * np.sinc(scale * ROLLOFF * apart)
        return ideal * _kaiser(apart / self.half)

    def push(self, block: np.ndarray) -> np.ndarray:
        """The outputs that a further block of inputs makes known."""
        self.seen += len(block)
        self.held = np.concatenate([self.held, block])
        return self._write(self._known(self.seen))

    def finish(self) -> np.ndarray:
        """The outputs at the end, behind which there is silence; together ceil(n x 16000/rate)."""
        total = -(-self.seen * self.up // self.down)
        self.held = np.concatenate([self.held, np.zeros(self.half + 1)])
        return self._write(total)

    def _known(self, seen: int) -> int:
        """How many outputs have all their inputs among the first ``seen``."""
        last = seen - 1 - self.half  # the input at or before the place of an output
        return max(0, -(-(last + 1) * self.up // self.down)) if last >= 0 else 0

    def _write(self, until: int) -> np.ndarray:
        count = until - self.written
        if count <= 0:
            return np.empty(0)
        found = np.empty(count)
        views = np.lib.stride_tricks.sliding_window_view(self.held, 2 * self.half)
        for offset in range(min(self.up, count)):
            number = self.written + offset
            place, phase = divmod(number * self.down, self.up)
            start = place - self.half + 1 - self.first
            rows = -(-(count - offset) // self.up)
            taken = views[start : start + (rows - 1) * self.down + 1 : self.down]
            found[offset :: self.up] = taken @ self.filters[phase]
        self.written = until
        keep = until * self.down // self.up - self.half + 1 - self.first
        self.held, self.first = self.held[keep:], self.first + keep
        return found


def _kaiser(place: np.ndarray) -> np.ndarray:
    """The window at places from -1 to 1, 0 outside."""
    inside = np.sqrt(np.maximum(0.0, 1 - place**2))
    return np.where(np.abs(place) <= 1, np.i0(SHARPNESS * inside) / np.i0(SHARPNESS), 0.0)
