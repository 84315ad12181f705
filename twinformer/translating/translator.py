"""Texts in, texts out: a trained or converted model with its vocabularies, in either framework."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.conversion.opening import BEST, open_model
from convert.families.base import TRAINING_ONLY
from training_recipe.arrays import checksums
from training_recipe.distributed.processes import ALONE, World
from training_recipe.options.settings import SETTINGS
from training_recipe.searching.attention import AttentionWeights
from training_recipe.searching.search import Hypothesis, Search
from training_recipe.searching.workers import ONE_WORKER, Workers
from training_recipe.text.model_vocabularies import spoken
from transformer_spec import Faults, UserError
from transformer_spec.strict import is_whole
from twinformer.frameworks import choose, twin
from twinformer.translating.devices import agree_on, agree_on_ids, world_of
from twinformer.translating.searching import check_asked, search_of
from twinformer.translating.texts import Sources, check_texts, encode_texts, translate

DEFAULT_BATCH = 32
DEVICES = SETTINGS["device"].choices


@dataclass(frozen=True)
class Translation:
    """One output of a text.

    ``log_probability`` is the sum of the natural log probabilities of its tokens, ``score`` that
    divided by their number to the power of the length penalty (Wu et al. 2016, section 7, with our
    simpler divisor); eos counts. ``ended`` says whether the output ended by itself. ``others`` are
    the next best outputs, best first, where ``nbest`` asked for them.
    """

    text: str
    score: float
    log_probability: float
    ended: bool
    others: tuple[Translation, ...] = ()


class Translator:
    """Translates by the model of a folder: a run, one of its checkpoints, or a converted folder.

    Another library's folder, or its name on the Hub, OWNER/NAME[@REVISION], is read on the fly and
    stays as it is. ``backend`` is "jax" or "torch"; None is the one that wrote the run, or whose
    format a converted folder has, if it is installed, else the other. ``device`` is "auto", "cpu",
    "gpu" or "tpu". ``checkpoint`` is "best" or the step of a run's checkpoint. ``languages`` are
    the codes of source and target, as "eng_Latn,deu_Latn" or a pair, for a model that has
    languages. ``mesh``, "data=N", spreads texts over N devices, ``batch_size`` texts each: all that
    JAX sees, or those of the processes that torchrun started, all of which then make the same
    calls; ``world`` is one that was joined before. Calculates in float64 where the weights are, and
    in float32 otherwise. ``search`` is how the model searches unless told. Raises UserError where
    there is no model that reads and writes text, and, unless told not to ``verify``, when the
    weights are first needed and are not what was written there.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        backend: str | None = None,
        device: str = "auto",
        checkpoint: str | int = BEST,
        batch_size: int = DEFAULT_BATCH,
        verify: bool = True,
        languages: str | Sequence[str] | None = None,
        mesh: str | None = None,
        world: World = ALONE,
    ) -> None:
        check_made_of(checkpoint, batch_size, device, mesh)
        given = languages_of(languages)
        self._opened = open_model(folder, verify=verify, checkpoint=checkpoint)
        self.config, self.batch_size, self.device = self._opened.config, batch_size, device
        if self.config.feature_dim:
            hears = f"the model of {folder} hears, and reads no text"
            raise UserError(f"{hears}: python -m twinformer transcribe {folder} FILE")
        self.source, self.target = spoken(self._opened.text(), given)
        self.search = self.search_with({})
        self.backend, notes = choose(backend, self._opened.home)
        told = [note for note in self._opened.notes if not note.endswith(TRAINING_ONLY)]
        self.notes = [*told, *notes]
        self._dtype = "float32"
        self.world = world if mesh is None else world_of(self.backend, device, mesh)

    @functools.cached_property
    def model(self) -> Any:
        """The framework's own model, read when it is first needed."""
        processes = self.world.processes
        with processes.together():
            weights = self._opened.weights()
        if processes.count > 1:
            processes.agree("the weights", checksums(weights))
        exact = any(array.dtype == np.float64 for array in weights.values())
        self._dtype = "float64" if exact else "float32"
        cast = {name: array.astype(self._dtype, copy=False) for name, array in weights.items()}
        with processes.together(), self._numbers():
            make = twin(self.backend, "device").model_on
            return make(self.config, cast, self.device, self.world.mesh)

    def __call__(
        self,
        texts: str | Sequence[str],
        *,
        beam: int | None = None,
        length_penalty: float | None = None,
        nbest: int | None = None,
        max_length: int | None = None,
        sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        seed: int | None = None,
        rule: str | None = None,
        early_stopping: bool | str | None = None,
        min_length: int | None = None,
        no_repeat_ngram_size: int | None = None,
        repetition_penalty: float | None = None,
        truncate: bool = False,
        skip_long: bool = False,
    ) -> list[Translation]:
        """The best output of each text, in order; one text alone is a list of one.

        What is None is as the model was published, or where that says nothing: ``beam``, the width
        of the search, 5 (1 is greedy); ``max_length``, the most tokens of an output, eos counted,
        2 x source + 10; ``rule`` "exact", which goes on while a better output is possible, and not
        "generate", which ends as transformers' generate does and alone knows ``early_stopping``,
        ``min_length``, ``no_repeat_ngram_size`` and ``repetition_penalty``. ``sample`` draws
        ``nbest`` outputs from ``seed`` instead of searching. A text that is longer than the model
        is a UserError, unless ``truncate`` cuts it or ``skip_long`` gives it an empty output; so is
        a setting that no search can follow.
        """
        asked = {
            "beam": beam,
            "length_penalty": length_penalty,
            "nbest": nbest,
            "max_length": max_length,
            "sample": sample,
            "temperature": temperature,
            "top_k": top_k,
            "seed": seed,
            "rule": rule,
            "early_stopping": early_stopping,
            "min_length": min_length,
            "no_repeat_ngram_size": no_repeat_ngram_size,
            "repetition_penalty": repetition_penalty,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        wanted = self.search_with(given)
        check_asked(wanted, given, self.config)
        texts = check_texts(texts)
        check_wanted(wanted.sample, temperature, top_k, truncate, skip_long)
        batches = {"batch_size": self.batch_size, "truncate": truncate, "skip_long": skip_long}
        agree_on(self.world, texts, wanted, batches)
        with self.world.processes.together():
            sources = self.encode([text.strip() for text in texts], truncate, skip_long)
        agree_on_ids(self.world, sources.ids)
        blocks = self.decode(sources.ids, wanted)
        return [self.translation(found) for block in blocks for found in block]

    def search_with(self, given: Mapping[str, Any]) -> Search:
        """The model's own search with other settings, by name; not checked yet."""
        return search_of(self._opened.search, given, self.target)

    def encode(
        self, texts: Sequence[str], truncate: bool = False, skip_long: bool = False
    ) -> Sources:
        """The token ids of texts, and notes on what the vocabulary does not know."""
        return encode_texts(texts, self.source, self.config.max_source_length, truncate, skip_long)

    def decode(
        self,
        ids: Sequence[list[int]],
        search: Search,
        advance: Callable[[int], object] = lambda count: None,
    ) -> Iterator[list[list[Hypothesis]]]:
        """The outputs of sources of token ids, in order, a block of sources at a time."""
        frame, rows = self.source.frame, self.batch_size * self.world.mesh.devices
        decode, workers = self.decode_batch, self.workers if any(ids) else ONE_WORKER
        return translate(ids, decode, search, rows, self.config, advance, frame, workers)

    @property
    def workers(self) -> Workers:
        """Who may call ``decode_batch`` side by side: nobody where several devices do together."""
        if not self.world.is_one_device:
            return ONE_WORKER
        return twin(self.backend, "device").workers_of(self.model)

    def decode_batch(self, source: np.ndarray, search: Search) -> list[list[Hypothesis]]:
        """The n best outputs of each row of ``source`` (B, S) int32: ids, eos, padding."""
        model = self.model
        with self._numbers():
            if self.world.is_one_device:
                return twin(self.backend, "decoding").decode(model, source, search)
            decode = twin(self.backend, "mesh_decoding").decode_in
            return decode(self.world, self.device, model, source, search)

    def translation(self, found: Sequence[Hypothesis]) -> Translation:
        """The outputs of one text as text."""
        best, *others = [
            Translation(self.target.decode(one.ids), one.score, one.log_probability, one.ended)
            for one in found
        ]
        return Translation(best.text, best.score, best.log_probability, best.ended, tuple(others))

    def attention(self, source: np.ndarray, target: np.ndarray) -> AttentionWeights:
        """The attention weights of every layer for ids (B, S) and what was written (B, T).

        Of several processes any may ask, once the model is read.
        """
        model = self.model
        if not self.world.is_one_device:
            model = twin(self.backend, "device").own_copy(model)
        with self._numbers():
            return twin(self.backend, "attention_maps").attention_weights(model, source, target)

    def _numbers(self) -> AbstractContextManager[None]:
        """A block in which the framework has the numbers of the model's format."""
        return twin(self.backend, "device").numbers_of(self._dtype)


def check_made_of(checkpoint: object, batch_size: object, device: object, mesh: object) -> None:
    """Raise one UserError that names every argument that no Translator is made of."""
    faults = Faults()
    step = is_whole(checkpoint, 0)
    named = isinstance(checkpoint, str) and (checkpoint == BEST or checkpoint.isdecimal())
    message = f"checkpoint is {checkpoint!r}; it must be {BEST!r} or the step of a checkpoint"
    faults.require(step or named, message)
    message = f"batch_size is {batch_size!r}; it must be a whole number of at least 1"
    faults.require(is_whole(batch_size, 1), message)
    known = ", ".join(DEVICES)
    faults.require(device in DEVICES, f"device is {device!r}; it must be one of {known}")
    faults.require(isinstance(mesh, str | None), f"mesh is {mesh!r}; give a text, as in 'data=2'")
    faults.raise_if_any("cannot translate")


def languages_of(given: object) -> str | None:
    """The languages as a command takes them; what is neither a text nor texts is a UserError."""
    if isinstance(given, str | None):
        return given
    codes = list[Any](given) if isinstance(given, list | tuple) else []  # pyright: ignore[reportUnknownArgumentType]
    if not codes or not all(isinstance(code, str) for code in codes):
        raise UserError(
            f"languages is {given!r}; give a text such as 'eng_Latn,deu_Latn', or a pair of codes"
        )
    return ",".join(map(str, codes))


def check_wanted(
    sample: bool, temperature: float | None, top_k: int | None, truncate: bool, skip_long: bool
) -> None:
    """Raise one UserError for what would be ignored without a word."""
    faults = Faults()
    for name, changed in (("temperature", temperature not in (None, 1)), ("top_k", bool(top_k))):
        faults.require(sample or not changed, f"{name} is of sampling alone; give sample=True")
    both = truncate and skip_long
    faults.require(not both, "truncate and skip_long are both given; a long text is one or other")
    faults.raise_if_any("cannot translate")
