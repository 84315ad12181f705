"""Recordings to transcripts, whatever framework the model is of.

Radford et al. 2022, sections 3.8 and 4.5, and the program that was published with it: windows of
30 s follow each other, the next begins where the last complete segment of one ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training_recipe.searching.search import GENERATE, Hypothesis, Search
from training_recipe.searching.timestamps import Timestamps
from training_recipe.speech.tokens import LATEST_FIRST, SpeechTokens
from training_recipe.transcription.fallback import Outcome, compression_ratio
from training_recipe.transcription.settings import TranscriptionSettings
from training_recipe.transcription.tracks import Job, Track
from training_recipe.transcription.transcripts import Transcript
from transformer_spec.errors import UserError

Ended = tuple[int, Transcript | UserError]


class Heard(Protocol):
    """Windows that a model has heard, a row each."""

    def logits(self, prompt: tuple[int, ...]) -> np.ndarray:
        """(B, P, V): the logits after each token of a prompt."""
        ...

    def decode(self, search: Search, rows: Sequence[int] | None = None) -> list[list[Hypothesis]]:
        """The n best outputs of some rows, best first."""
        ...


class Tokenizer(Protocol):
    """What cuts texts into tokens and joins them; tokens of no text are passed over."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class SpeechModel:
    """What transcribing needs of a model.

    ``hear`` encodes features (B, 3000, ``bins``) of a ``dtype``. An output is of at most
    ``max_length`` tokens, its prompt included. ``suppressed`` tokens are never written, those of
    ``suppressed_first`` not first.
    """

    hear: Callable[[np.ndarray], Heard]
    tokens: SpeechTokens
    tokenizer: Tokenizer
    bins: int
    max_length: int
    suppressed: tuple[int, ...]
    suppressed_first: tuple[int, ...]
    dtype: Any = np.float32


def transcribe(
    paths: Sequence[str | Path],
    model: SpeechModel,
    settings: TranscriptionSettings,
    batch_size: int,
    advance: Callable[[float], object] = lambda seconds: None,
    opened: Callable[[float], object] = lambda seconds: None,
) -> Iterator[Ended]:
    """The transcript of each file with its number, as soon as it is done.

    A file that cannot be read has an error in the place of its transcript, and the others go on.
    So many windows are heard at once, of several files or, with ``settings.chunks``, of one.
    ``opened`` is told how many seconds a file has, ``advance`` how many were done.
    """
    active = list[Track]()
    waiting = begun(paths, model, settings, opened)
    while True:
        jobs, ended = next_jobs(waiting, active, batch_size)
        yield from ended
        if not jobs:
            return
        for job, outcome in zip(jobs, outcomes(jobs, model, settings), strict=True):
            before = job.track.done
            job.track.take(job, outcome, model.tokenizer)
            advance(job.track.done - before)
        for track in [track for track in active if track.is_done]:
            active.remove(track)
            yield track.number, track.transcript()


def begun(
    paths: Sequence[str | Path],
    model: SpeechModel,
    settings: TranscriptionSettings,
    opened: Callable[[float], object],
) -> Iterator[Track | Ended]:
    """Each file, opened when it is asked for, or what is wrong with it."""
    text = settings.prompt.strip()
    prompt = model.tokenizer.encode(f" {text}") if text else []
    for number, path in enumerate(paths):
        try:
            track = Track(number, path, model.bins, model.dtype, model.tokens, settings, prompt)
        except UserError as error:
            yield number, error
            continue
        opened(track.recording.seconds)
        yield track


def next_jobs(
    waiting: Iterator[Track | Ended], active: list[Track], most: int
) -> tuple[list[Job], list[Ended]]:
    """The next windows, of files that are being transcribed and then of new ones.

    And what ends here: files that cannot be read, and those in which there is not one frame.
    """
    jobs, ended = list[Job](), list[Ended]()
    for track in list(active):
        ended += _add(jobs, track, active, most)
    while len(jobs) < most and (each := next(waiting, None)) is not None:
        if isinstance(each, Track):
            active.append(each)
            ended += _add(jobs, each, active, most)
        else:
            ended.append(each)
    return jobs, ended


def _add(jobs: list[Job], track: Track, active: list[Track], most: int) -> list[Ended]:
    """Add a file's next windows; what ends by that, which is then active no more."""
    try:
        jobs += track.jobs(most - len(jobs))
    except UserError as error:
        active.remove(track)
        return [(track.number, error)]
    if not track.is_done:
        return []
    active.remove(track)
    return [(track.number, track.transcript())]


def outcomes(
    jobs: Sequence[Job], model: SpeechModel, settings: TranscriptionSettings
) -> list[Outcome]:
    """The output for each window, written again where it is thought to be wrong."""
    heard = model.hear(filled(np.stack([job.features for job in jobs])))
    first = heard.logits((model.tokens.start,))[:, -1]
    for row, job in enumerate(jobs):
        if job.track.language is None:
            job.track.language, job.track.probability = detected(first[row], model.tokens)
    silence = no_speech(heard, first, jobs, model.tokens)
    found, pending = dict[int, Outcome](), list(range(len(jobs)))
    for temperature in settings.temperatures:
        for (prompt, timed), rows in grouped(jobs, pending).items():
            search = search_of(model, settings, prompt, timed, temperature)
            for row, best in zip(rows, heard.decode(search, rows), strict=True):
                found[row] = outcome(best[0], model.tokenizer, silence[row], temperature)
        pending = [row for row in pending if settings.thresholds.wants_another(found[row])]
        if not pending:
            break
    return [found[row] for row in range(len(jobs))]


def filled(features: np.ndarray) -> np.ndarray:
    """Features with rows of zeros up to a power of two, as XLA compiles every number of rows."""
    rows = 1 << (len(features) - 1).bit_length()
    return np.pad(features, ((0, rows - len(features)), (0, 0), (0, 0)))


def grouped(
    jobs: Sequence[Job], rows: Sequence[int]
) -> dict[tuple[tuple[int, ...], bool], list[int]]:
    """Rows by the prompt that their outputs begin with, and whether these have timestamps."""
    found: dict[tuple[tuple[int, ...], bool], list[int]] = {}
    for row in rows:
        track = jobs[row].track
        found.setdefault((track.prompt(), track.timestamps), []).append(row)
    return found


def detected(logits: np.ndarray, tokens: SpeechTokens) -> tuple[str, float]:
    """The likeliest language after the start (V,), and its probability among all languages."""
    first = tokens.first_language
    shares = softmax(logits[first : first + len(tokens.languages)])
    best = int(shares.argmax())
    return tokens.languages[best], float(shares[best])


def no_speech(
    heard: Heard, first: np.ndarray, jobs: Sequence[Job], tokens: SpeechTokens
) -> list[float]:
    """The probability that nothing is said, of each window: of its token after the start."""
    after: dict[tuple[int, ...], np.ndarray] = {(): first}
    for job in jobs:
        before = job.track.before()
        if before not in after:
            after[before] = heard.logits((*before, tokens.start))[:, -1]
    rows = (after[job.track.before()][row] for row, job in enumerate(jobs))
    return [float(softmax(logits)[tokens.no_speech]) for logits in rows]


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return powers / powers.sum()


def search_of(
    model: SpeechModel,
    settings: TranscriptionSettings,
    prompt: tuple[int, ...],
    timed: bool,
    temperature: float,
) -> Search:
    """How an output is looked for: by a beam, or at a temperature by sampling."""
    tokens, sample = model.tokens, temperature > 0
    rules = Timestamps(tokens.first_timestamp, tokens.no_timestamps, tokens.end, LATEST_FIRST)
    return Search(
        beam=1 if sample else settings.beam,
        nbest=settings.best_of if sample else 1,
        sample=sample,
        temperature=temperature or 1.0,
        seed=settings.seed,
        rule=GENERATE,
        renormalize=True,
        max_length=min(settings.max_length, model.max_length - len(prompt)),
        prompt=prompt,
        timestamps=rules if timed else None,
        suppressed=model.suppressed,
        suppressed_first=model.suppressed_first,
    )


def outcome(best: Hypothesis, tokenizer: Tokenizer, silence: float, temperature: float) -> Outcome:
    """An output as it is judged; the mean counts the end, also where none was written."""
    mean = best.log_probability / (len(best.ids) + 1)
    ratio = compression_ratio(tokenizer.decode(best.ids).strip())
    return Outcome(tuple(best.ids), mean, ratio, silence, temperature)
