"""A file on its way to a transcript: which windows are next, and what was said in those before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training_recipe.sound.features import FRAMES, FRAMES_A_SECOND
from training_recipe.sound.recordings import Recording
from training_recipe.speech.tokens import SECONDS_EACH, SpeechTokens
from training_recipe.transcription.fallback import FORGETTING, Outcome
from training_recipe.transcription.settings import TranscriptionSettings
from training_recipe.transcription.transcripts import Segment, Transcript
from training_recipe.transcription.windows import Piece, pieces

REMEMBERED = 223  # tokens of what was written before


class Decoder(Protocol):
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Job:
    """A window of a file: its features (3000, bins), of which ``frames`` are the file's."""

    track: Track
    seek: int
    features: np.ndarray
    frames: int


class Track:
    """One file; ``language`` is None until it is known, ``seek`` the frame of the next window.

    ``written`` are the tokens of the text before it.
    """

    def __init__(
        self,
        number: int,
        path: str | Path,
        bins: int,
        dtype: Any,
        tokens: SpeechTokens,
        settings: TranscriptionSettings,
        prompt: Sequence[int] = (),
    ) -> None:
        self.number, self.tokens, self.settings = number, tokens, settings
        self.recording = Recording(path, bins, dtype)
        # What a window breaks off is written in the next; where it is cut, all of it is wanted.
        self.timestamps = settings.timestamps or (self.recording.is_long and not settings.chunks)
        self.language = settings.language if tokens.multilingual else "en"
        self.probability: float | None = None
        self.seek, self.open = 0, 0
        self.segments, self.written = list[Segment](), list(prompt)

    @property
    def is_done(self) -> bool:
        return not self.open and self.seek >= self.recording.frames

    @property
    def done(self) -> float:
        """The seconds that lie behind."""
        frames = self.recording.frames
        share = 1.0 if self.is_done else min(self.seek, frames) / max(frames, 1)
        return share * self.recording.seconds

    def jobs(self, most: int) -> list[Job]:
        """The next windows: one, or as many as there are where they are cut without looking."""
        found, seek = list[Job](), self.seek
        most = most if self.settings.chunks else min(most, 1)
        while seek < self.recording.frames and len(found) < most:
            found.append(Job(self, seek, *self.recording.window(seek)))
            seek += FRAMES
        self.open = len(found)
        return found

    def before(self) -> tuple[int, ...]:
        """What a prompt begins with: the end of the text before, where that is asked for."""
        if not self.written:
            return ()
        return (self.tokens.start_of_previous, *self.written[-REMEMBERED:])

    def prompt(self) -> tuple[int, ...]:
        """How an output begins."""
        language = self.language if self.tokens.multilingual else None
        task = self.settings.task if self.tokens.multilingual else None
        return (*self.before(), *self.tokens.prompt(language, task, self.timestamps))

    def take(self, job: Job, outcome: Outcome, tokenizer: Decoder) -> None:
        """Add what was said in a window, and go on behind it."""
        self.open -= 1
        if self.settings.thresholds.is_silence(outcome):
            self.seek = job.seek + job.frames
            return
        first, chunks = self.tokens.first_timestamp, self.settings.chunks
        found, ahead = pieces(outcome.tokens, first, job.frames, keep_rest=chunks)
        new = [self._segment(job, piece, outcome, tokenizer) for piece in found]
        kept = [each for each in new if each.text.strip() and each.start < each.end]
        self.segments += kept
        self.written += [token for each in kept for token in each.tokens]
        if outcome.temperature > FORGETTING or not self.settings.previous_text:
            self.written = []
        self.seek = job.seek + ahead

    def _segment(self, job: Job, piece: Piece, outcome: Outcome, tokenizer: Decoder) -> Segment:
        """A piece of a window at its time in the recording."""
        begin = job.seek / FRAMES_A_SECOND
        return Segment(
            start=round(begin + piece.start * SECONDS_EACH, 2),
            end=round(begin + piece.end * SECONDS_EACH, 2),
            text=tokenizer.decode([t for t in piece.tokens if t < self.tokens.end]),
            tokens=piece.tokens,
            avg_logprob=outcome.mean_log_probability,
            compression_ratio=outcome.compression_ratio,
            no_speech_prob=outcome.no_speech,
            temperature=outcome.temperature,
        )

    def transcript(self) -> Transcript:
        return Transcript(
            str(self.recording.audio.path),
            tuple(self.segments),
            self.language,
            self.probability,
            self.recording.seconds,
            tuple(self.recording.notes),
        )
