"""The windows of a recording, each (3000, bins), whatever its length, in constant memory.

A recording of at most a window is followed by silence before its features are taken, as the
program of Radford et al. 2022 decodes one, and as the checkpoints were trained. The features of a
longer one are those of all of it, whose loudest bin is the measure everywhere, and what is missing
from its last window is filled with zeros: so does that program transcribe.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training_recipe.sound.audio import Audio
from training_recipe.sound.features import (
    FLOOR,
    FRAMES,
    RATE,
    SAMPLES,
    frames_of,
    log_mel,
    scaled,
    streamed_powers,
)
from transformer_spec.errors import UserError


class Recording:
    """The features of a file, of which windows are asked for at growing places.

    It is read once to know its length and its loudest bin, and once for the windows of a longer
    recording; one that is asked for before the last is found by reading again. ``frames`` are those
    of its samples, 100 a second.
    """

    def __init__(self, path: str | Path, bins: int, dtype: Any = np.float32) -> None:
        self.audio, self.bins, self.dtype = Audio(path), bins, dtype
        self.samples, self.loudest = 0, -np.inf
        self._begin = list[np.ndarray]()
        self._measure()
        if not self.samples:
            raise UserError(f"{path} holds no sound")
        self.notes = self.audio.notes
        self._short = None if self.is_long else self._of_one_window()
        self._parts: Iterator[np.ndarray] = iter(())
        self._held, self._first = np.empty((0, bins)), FRAMES * SAMPLES

    @property
    def frames(self) -> int:
        return frames_of(self.samples)

    @property
    def seconds(self) -> float:
        return self.samples / RATE

    @property
    def is_long(self) -> bool:
        """Whether it is longer than a window."""
        return self.samples > SAMPLES

    def window(self, seek: int) -> tuple[np.ndarray, int]:
        """Features (3000, bins) from a frame on, and how many of the frames are the recording's."""
        frames = max(0, min(FRAMES, self.frames - seek))
        if self._short is not None:
            silence = scaled(np.full((seek, self.bins), FLOOR), self.loudest, self.dtype)
            return np.concatenate([self._short[seek:], silence]), frames
        found = np.zeros((FRAMES, self.bins), self.dtype)
        found[:frames] = scaled(self._powers(seek, seek + frames), self.loudest, self.dtype)
        return found, frames

    def _measure(self) -> None:
        for powers in streamed_powers(self._counted(), self.bins):
            self.loudest = max(self.loudest, float(powers.max(initial=-np.inf)))

    def _counted(self) -> Iterator[np.ndarray]:
        """The blocks, of which the first are kept while one window may hold them all."""
        for block in self.audio.blocks():
            self.samples += len(block)
            self._begin = [] if self.is_long else [*self._begin, block]
            yield block

    def _of_one_window(self) -> np.ndarray:
        samples = np.concatenate(self._begin)
        self._begin = []
        features = log_mel(samples, self.bins, np.float64)
        self.loudest = float(features.max()) * 4 - 4
        return features.astype(self.dtype)

    def _powers(self, start: int, stop: int) -> np.ndarray:
        """The log powers of some frames."""
        if start < self._first:
            self._parts = streamed_powers(self.audio.blocks(), self.bins)
            self._held, self._first = np.empty((0, self.bins)), 0
        while self._first + len(self._held) < stop:
            drop = min(max(0, start - self._first), len(self._held))
            self._held = np.concatenate([self._held[drop:], next(self._parts)])
            self._first += drop
        return self._held[start - self._first : stop - self._first]
