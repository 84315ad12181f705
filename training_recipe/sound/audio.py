"""Recordings from files: mono samples of 16 kHz, a block at a time, in constant memory.

WAV files of whole numbers are read by the standard library, every other format by soundfile.
"""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from training_recipe.options.extras import require
from training_recipe.sound.features import RATE
from training_recipe.sound.resampling import HIGHEST, LOWEST, Resampler
from transformer_spec.errors import UserError, system_fault

SECONDS, MOST = 30, 2**23  # of a block: its length, and the most numbers that it holds
# Of whole numbers little endian, by their bytes; those of one byte are not signed.
NUMBERS = {1: "<u1", 2: "<i2", 4: "<i4"}
MAGIC = 16
MOST_MISSING = 0.1  # seconds that decoders of lossy formats may leave out
ENDLESS = 2**31 - 2**16  # bytes that a header speaks of that was written before its samples
OTHERS = {"an MP4 file": (4, b"ftyp"), "a Matroska file": (0, b"\x1aE\xdf\xa3")}
MADE = "make a WAV file of it: ffmpeg -i FILE -ac 1 -ar 16000 FILE.wav"


class Audio:
    """A file of sound, read again by every call of ``blocks``.

    ``notes`` say what there is to say after one call. What cannot be read is a UserError.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.notes = Path(path), list[str]()

    def blocks(self) -> Iterator[np.ndarray]:
        """Blocks (n,) float64 of the mean of all channels, in [-1, 1], 16,000 a second."""
        self.notes, resampler = [], None
        for rate, samples in self._channels():
            mono = self._checked(samples).mean(1)
            if rate != RATE:
                resampler = resampler or Resampler(rate)
                mono = resampler.push(mono)
            yield mono
        if resampler:
            yield resampler.finish()

    def _channels(self) -> Iterator[tuple[int, np.ndarray]]:
        """The rate and blocks (n, channels) of the file."""
        try:
            begin = self._begin()
            wav = begin[:4] == b"RIFF" and begin[8:12] == b"WAVE"
            opened = self._opened_wav() if wav else None
            yield from self._of_wave(opened) if opened else self._of_soundfile(begin)
        except OSError as error:
            raise UserError(f"cannot read {system_fault(error)}") from None

    def _begin(self) -> bytes:
        """The first bytes; a file that has none, or is of no format that is read, is refused."""
        if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
            told = "is read once alone, and a recording twice: give -, and it on standard input"
            raise UserError(f"{self.path} is a pipe, which {told}")
        with self.path.open("rb") as file:
            begin = file.read(MAGIC)
        if not begin:
            raise UserError(f"{self.path} is empty")
        for noun, (place, mark) in OTHERS.items():
            if begin[place : place + len(mark)] == mark:
                raise UserError(f"{self.path} is {noun}, of which no sound is read; {MADE}")
        return begin

    def _opened_wav(self) -> wave.Wave_read | None:
        """The file by the standard library, None where it does not know its kind of WAV."""
        try:
            opened = wave.open(str(self.path), "rb")
        except (wave.Error, EOFError, RuntimeError):  # the last where lengths contradict
            return None
        if opened.getsampwidth() in (*NUMBERS, 3) and opened.getframerate() > 0:
            return opened
        opened.close()
        return None

    def _of_wave(self, opened: wave.Wave_read) -> Iterator[tuple[int, np.ndarray]]:
        with opened:
            rate, stated, found = opened.getframerate(), opened.getnframes(), 0
            self._check_rate(rate)
            channels, width = opened.getnchannels(), opened.getsampwidth()
            while raw := opened.readframes(frames_at_once(rate, channels)):
                samples = numbers(raw[: len(raw) - len(raw) % (channels * width)], width)
                found += len(samples) // channels
                yield rate, samples.reshape(-1, channels)
        if stated * channels * width < ENDLESS:
            self._say_if_cut(found / rate, stated / rate)

    def _of_soundfile(self, begin: bytes) -> Iterator[tuple[int, np.ndarray]]:
        soundfile = self._library(begin)
        try:
            with soundfile.SoundFile(self.path) as opened:
                rate, found = opened.samplerate, 0
                self._check_rate(rate)
                size = frames_at_once(rate, opened.channels)
                while len(samples := opened.read(size, dtype="float64", always_2d=True)):
                    found += len(samples)
                    yield rate, samples
                self._say_if_cut(found / rate, opened.frames / rate)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.removeprefix("Error : ").strip().rstrip(".")
            raise UserError(f"{self.path} cannot be read as sound: {reason}; {MADE}") from None

    def _library(self, begin: bytes) -> Any:
        kind = "a WAV file of another kind" if begin[:4] == b"RIFF" else "no WAV file"
        require("speech", f"reading {self.path}, {kind},", "soundfile")
        import soundfile

        return soundfile

    def _check_rate(self, rate: int) -> None:
        if not LOWEST <= rate <= HIGHEST:
            allowed = f"from {LOWEST:,} to {HIGHEST:,} are read"
            raise UserError(f"{self.path} has {rate:,} samples a second; {allowed}")

    def _checked(self, samples: np.ndarray) -> np.ndarray:
        if not np.isfinite(samples).all():
            raise UserError(f"{self.path} holds samples that are no numbers (NaN or infinite)")
        return samples

    def _say_if_cut(self, found: float, stated: float) -> None:
        if stated - found > MOST_MISSING:
            lack = f"it has {found:.1f} of the {stated:.1f} seconds that it speaks of"
            self.notes.append(f"{self.path} is cut off: {lack}")


def frames_at_once(rate: int, channels: int) -> int:
    return max(1, min(rate * SECONDS, MOST // channels))


def numbers(raw: bytes, width: int) -> np.ndarray:
    """Samples in [-1, 1) float64 of whole numbers of ``width`` bytes, little endian."""
    if width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] / 2.0**31
    whole = np.frombuffer(raw, NUMBERS[width]).astype(np.float64)
    return (whole - 128) / 128 if width == 1 else whole / 2.0 ** (8 * width - 1)
