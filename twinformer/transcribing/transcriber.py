"""Recordings in, transcripts out: a trained or converted model of speech, in either framework."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from convert.conversion.opening import BEST, OpenModel, open_model
from convert.conversion.side_files.beside import VOCABULARY, folder_of
from convert.families.base import TRAINING_ONLY
from training_recipe.searching.search import Hypothesis, Search
from training_recipe.speech.tokenizer import FILES, SpeechTokenizer
from training_recipe.speech.tokens import SpeechTokens, suppressed, suppressed_first
from training_recipe.transcription.settings import TranscriptionSettings
from training_recipe.transcription.transcription import Heard, SpeechModel, transcribe
from training_recipe.transcription.transcripts import Transcript
from transformer_spec import Faults, TransformerConfig, UserError
from transformer_spec.paths import as_path
from twinformer.frameworks import choose, twin
from twinformer.translating.translator import check_made_of

DEFAULT_BATCH = 8
File = str | os.PathLike[str]


class Transcriber:
    """Transcribes by the model of speech of a folder: a run, a converted folder, a library's.

    A library's folder, or its name on the Hub, OWNER/NAME[@REVISION], is read on the fly and stays
    as it is. ``backend`` is "jax" or "torch"; None is one that is installed. ``device`` is "auto",
    "cpu", "gpu" or "tpu". ``batch_size`` windows of 30 s are heard at once, of several files or,
    with ``chunks``, of one. Calculates in float64 where the weights are, and in float32 otherwise.
    Raises UserError where there is no model that hears and writes text, and, unless told not to
    ``verify``, when the weights are first needed and are not what was written there.
    """

    def __init__(
        self,
        folder: File,
        *,
        backend: str | None = None,
        device: str = "auto",
        checkpoint: str | int = BEST,
        batch_size: int = DEFAULT_BATCH,
        verify: bool = True,
    ) -> None:
        check_made_of(checkpoint, batch_size, device, None)
        self._opened = open_model(folder, verify=verify, checkpoint=checkpoint)
        self.config, self.batch_size, self.device = self._opened.config, batch_size, device
        check_hears(self._opened)
        self.tokens = SpeechTokens.of(self.config.target_vocab_size)
        self.tokenizer = tokenizer_of(self._opened)
        self.language = learnt_language(self._opened)
        self.backend, notes = choose(backend, self._opened.home)
        told = [note for note in self._opened.notes if not note.endswith(TRAINING_ONLY)]
        self.notes = [*told, *notes]
        self._dtype = "float32"

    @functools.cached_property
    def model(self) -> Any:
        """The framework's own model, read when it is first needed."""
        weights = self._opened.weights()
        exact = any(array.dtype == np.float64 for array in weights.values())
        self._dtype = "float64" if exact else "float32"
        cast = {name: array.astype(self._dtype, copy=False) for name, array in weights.items()}
        with self._numbers():
            return twin(self.backend, "device").model_on(self.config, cast, self.device)

    @overload
    def __call__(self, files: File, **settings: Any) -> Transcript: ...  # pyright: ignore[reportOverlappingOverload]

    @overload
    def __call__(self, files: Sequence[File], **settings: Any) -> list[Transcript]: ...

    def __call__(
        self, files: File | Sequence[File], **settings: Any
    ) -> Transcript | list[Transcript]:
        """The transcript of a file, or of each of several, in order.

        ``settings`` are the fields of TranscriptionSettings: language ("fr"; None is detected),
        task ("transcribe" or "translate"), timestamps, beam, temperatures, thresholds,
        previous_text, chunks ... Files that cannot be read are named in one UserError, after the
        others; ``each`` gives those that can.
        """
        alone = isinstance(files, str | os.PathLike)
        listed = [files] if alone else list(files) if isinstance(files, Sequence) else [files]
        for each in listed:
            if not isinstance(each, str | os.PathLike):
                raise UserError(f"a recording is a {type(each).__name__}; give the path of a file")
        paths = [files] if isinstance(files, str | os.PathLike) else list(files)
        found, faults = dict[int, Transcript](), Faults()
        for number, each in self.each(paths, settings_of(settings)):
            if isinstance(each, UserError):
                faults.take(each)
            else:
                found[number] = each
        faults.raise_if_any("cannot transcribe")
        return found[0] if alone else [found[number] for number in range(len(paths))]

    def each(
        self,
        files: Sequence[File],
        settings: TranscriptionSettings,
        advance: Callable[[float], object] = lambda seconds: None,
        opened: Callable[[float], object] = lambda seconds: None,
    ) -> Iterator[tuple[int, Transcript | UserError]]:
        """The number and the transcript of each file, as soon as it is done, or what is wrong.

        ``opened`` is told how many seconds a file has, ``advance`` how many were done.
        """
        self.check(settings)
        if settings.language is None and self.language is not None:
            settings = dataclasses.replace(settings, language=self.language)
        paths = [as_path(file, "a recording") for file in files]
        return transcribe(paths, self.speech_model(), settings, self.batch_size, advance, opened)

    def check(self, settings: TranscriptionSettings) -> None:
        """Raise a UserError where settings mean nothing, or not for this model."""
        settings.check()
        language = settings.language
        if self.tokens.multilingual:
            language = language or self.tokens.languages[0]
        self.tokens.prompt(language, settings.task)

    def speech_model(self) -> SpeechModel:
        """The model as what transcribes asks for it; its weights are read."""
        _ = self.model  # settles the number format
        encode = self.tokenizer.encode
        return SpeechModel(
            hear=self._hear,
            tokens=self.tokens,
            tokenizer=self.tokenizer,
            bins=self.config.feature_dim,
            max_length=self.config.max_length,
            suppressed=suppressed(self.tokens, encode),
            suppressed_first=suppressed_first(self.tokens, encode),
            dtype=np.dtype(self._dtype),
        )

    def _hear(self, features: np.ndarray) -> Heard:
        with self._numbers():
            heard = twin(self.backend).hear(self.model, features)
        return HeardInFormat(heard, self._numbers)

    def _numbers(self) -> AbstractContextManager[None]:
        """A block in which the framework has the numbers of the model's format."""
        return twin(self.backend, "device").numbers_of(self._dtype)


@dataclass(frozen=True)
class HeardInFormat:
    """What a model has heard, asked within the numbers of the model's format."""

    heard: Heard
    numbers: Callable[[], AbstractContextManager[None]]

    def logits(self, prompt: tuple[int, ...]) -> np.ndarray:
        with self.numbers():
            return self.heard.logits(prompt)

    def decode(self, search: Search, rows: Sequence[int] | None = None) -> list[list[Hypothesis]]:
        with self.numbers():
            return self.heard.decode(search, rows)


def learnt_language(opened: OpenModel) -> str | None:
    """The language that a run was told to learn; else it is detected."""
    return None if opened.vocabularies is None else opened.vocabularies[1].language


def settings_of(given: dict[str, Any]) -> TranscriptionSettings:
    """The settings by name; names that there are none of are a UserError."""
    from training_recipe.options.usual_names import meant

    known = {field.name for field in dataclasses.fields(TranscriptionSettings)}
    faults = Faults()
    for name in given.keys() - known:
        faults.add(f"there is no setting {name!r}{meant(name, known)}")
    faults.raise_if_any("cannot transcribe")
    return TranscriptionSettings(**given)


def check_hears(opened: OpenModel) -> None:
    """Raise a UserError for a model that hears nothing, or other windows than of 30 s."""
    config: TransformerConfig = opened.config
    if not config.feature_dim:
        raise UserError(f"the model of {opened.path} reads tokens and hears nothing: translate")
    if config.max_source_length != 1500:
        heard = f"{config.max_source_length / 50:g} s"
        raise UserError(f"the model of {opened.path} hears windows of {heard}; 30 s are cut here")


def tokenizer_of(opened: OpenModel) -> SpeechTokenizer:
    """The tokenizer in the model's folder, or beside its weights; where it is not, a UserError."""
    home, located = opened.home, opened.located
    beside = folder_of(located) or located.weights.parent
    folder = beside if home is None else home / VOCABULARY
    if not any((folder / name).is_file() for name in FILES):
        tokens = opened.config.target_vocab_size
        give = f"put tokenizer.json of a Whisper of {tokens} tokens into {folder}"
        raise UserError(f"the model of {opened.path} has no tokenizer; {give}")
    return SpeechTokenizer.load(folder, opened.config.target_vocab_size)
