"""Log-mel features as front ends make them: rightly, and with the known slips.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2. The
right one is written here a second time, so that features are not judged by the code that made them.
Letters: W frames, M bins, N the 400 samples of a transform.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RATE, N, HOP, FRAMES = 16000, 400, 160, 3000
# Of one window: float32 transforms of speech are within 2e-5, the least of the slips beyond 1e-3.
BOUND = 1e-4


@dataclass(frozen=True)
class FrontEnd:
    """How features of 30 s are made of samples; the defaults are right.

    ``power`` of the spectrum's magnitude; ``filled`` frames without sound are 0.0; ``held`` is how
    far below the loudest bin numbers are kept.
    """

    symmetric: bool = False
    htk: bool = False
    unit_area: bool = True
    first_dropped: bool = False
    reflected: bool = True
    filled: bool = False
    held: float = 8.0
    power: int = 2
    natural: bool = False
    scaled: bool = True
    whole_numbers: bool = False

    def features(self, samples: np.ndarray, bins: int) -> np.ndarray:
        """Mono samples of 16 kHz in [-1, 1] -> (3000, bins) float64, silence behind them."""
        x = np.asarray(samples[: FRAMES * HOP], np.float64)
        x = x * 32768 if self.whole_numbers else x
        heard = -(-len(x) // HOP)
        powers = self._powers(np.pad(x, (0, FRAMES * HOP - len(x)))) @ self._filters(bins)
        log = np.log if self.natural else np.log10
        found = log(np.maximum(powers, 1e-10))
        found = found[1:] if self.first_dropped else found[:-1]
        found = np.maximum(found, found.max() - self.held)
        found = (found + 4) / 4 if self.scaled else found
        if self.filled:
            found[heard:] = 0.0
        return found

    def _powers(self, x: np.ndarray) -> np.ndarray:
        """(3001, 201)."""
        mode = "reflect" if self.reflected else "constant"
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, N // 2, mode=mode), N)[::HOP]
        turns = np.arange(N) / (N - 1 if self.symmetric else N)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * turns)
        return np.abs(np.fft.rfft(frames * window)) ** self.power

    def _filters(self, bins: int) -> np.ndarray:
        """(201, bins): triangles between corners that are equally far apart in mel."""
        highest = self._mel(RATE / 2)
        corners = self._hertz(np.linspace(0.0, highest, bins + 2))
        lines = np.arange(N // 2 + 1) * (RATE / N)
        up = (lines[:, None] - corners[:-2]) / np.diff(corners)[:-1]
        down = (corners[2:] - lines[:, None]) / np.diff(corners)[1:]
        triangles = np.clip(np.minimum(up, down), 0, None)
        return triangles * (2 / (corners[2:] - corners[:-2])) if self.unit_area else triangles

    def _mel(self, hertz: float) -> float:
        if self.htk:
            return float(2595 * np.log10(1 + hertz / 700))
        return float(15 + 27 * np.log(hertz / 1000) / np.log(6.4))  # above 1000 Hz

    def _hertz(self, mel: np.ndarray) -> np.ndarray:
        if self.htk:
            return 700 * (10 ** (mel / 2595) - 1)
        return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))


SLIPS: dict[str, FrontEnd] = {
    "a symmetric Hann window for the periodic one": FrontEnd(symmetric=True),
    "HTK's mel scale for Slaney's": FrontEnd(htk=True),
    "filters of height 1 for those of area 1": FrontEnd(unit_area=False),
    "the first frame dropped for the last": FrontEnd(first_dropped=True),
    "zeros at both ends for reflected samples": FrontEnd(reflected=False),
    "0.0 in frames without sound": FrontEnd(filled=True),
    "nothing cut off 8 below the loudest bin": FrontEnd(held=np.inf),
    "magnitudes for powers": FrontEnd(power=1),
    "the natural logarithm for that of base 10": FrontEnd(natural=True),
    "(x + 4) / 4 left out": FrontEnd(scaled=False),
    "samples as whole numbers of 16 bits": FrontEnd(whole_numbers=True),
}


def explanations(samples: np.ndarray, found: np.ndarray) -> Iterator[tuple[str, float]]:
    """The slips that make these features (W, M), and how far they still are from them."""
    for name, slip in SLIPS.items():
        wrong = slip.features(samples, found.shape[1])
        if wrong.shape == found.shape:
            left = float(np.abs(wrong - found).max())
            if left <= BOUND * max(1.0, float(np.abs(wrong).max())):
                yield name, left
