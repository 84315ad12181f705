"""Samples of any rate as samples of 16 kHz: SciPy's polyphase filter, in blocks of any size.

The filter is a sinc under a Kaiser window; what lies above half of the lower rate is taken away by
100 dB and more.
"""

from __future__ import annotations

from math import ceil, gcd

import numpy as np

from training_recipe.options.extras import require
from training_recipe.sound.features import RATE

CROSSINGS = 64  # of the sinc, on each side
ROLLOFF = 0.9476  # of half the lower rate: where half of the amplitude is left
SHARPNESS = 14.77  # the Kaiser window's beta
LOWEST, HIGHEST = 1000, 400_000  # rates in Hz


class Resampler:
    """Takes blocks of samples at ``rate`` and gives blocks at 16 kHz.

    ``held`` are the inputs that outputs may still need: ``around`` of them before the next, whose
    number ``next`` is a multiple of ``down``, and what came after. Before number 0 there is
    silence. A UserError where SciPy is not installed.
    """

    def __init__(self, rate: int) -> None:
        require("speech", f"sound of {rate:,} samples a second", "scipy")
        from scipy.signal import firwin

        common = gcd(rate, RATE)
        self.up, self.down = RATE // common, rate // common
        half = ceil(CROSSINGS * max(1.0, self.down / self.up))  # inputs on each side
        cutoff, window = ROLLOFF / max(self.up, self.down), ("kaiser", SHARPNESS)
        self.filter = firwin(2 * half * self.up + 1, cutoff, window=window)  # pyright: ignore[reportArgumentType]
        self.around = ceil((half + 1) / self.down) * self.down
        self.held, self.next, self.seen = np.zeros(self.around), 0, 0

    def push(self, block: np.ndarray) -> np.ndarray:
        """The outputs that a further block of inputs makes known."""
        self.seen += len(block)
        self.held = np.concatenate([self.held, block])
        known = (self.seen - self.around) // self.down * self.down
        return self._between(known) if known > self.next else np.empty(0)

    def finish(self) -> np.ndarray:
        """The outputs at the end, behind which there is silence; together ceil(n x 16000/rate)."""
        rest = -(-self.seen * self.up // self.down) - self.next * self.up // self.down
        self.held = np.concatenate([self.held, np.zeros(self.around + self.down)])
        until = -(-self.seen // self.down) * self.down
        return self._between(until)[:rest]

    def _between(self, until: int) -> np.ndarray:
        """The outputs from the next input on to another, both multiples of ``down``."""
        from scipy.signal import resample_poly

        taken = self.held[: until - self.next + 2 * self.around]
        found = resample_poly(taken, self.up, self.down, window=self.filter)
        first, count = (n * self.up // self.down for n in (self.around, until - self.next))
        self.held, self.next = self.held[until - self.next :], until
        return found[first : first + count]
