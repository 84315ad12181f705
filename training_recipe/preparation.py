"""From settings to what a run needs before its first step: data, vocabularies, batches, config."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training_recipe.batching.batches import BatchPlan, Vary
from training_recipe.batching.encoded import (
    Encoded,
    Vocabularies,
    encode,
    fingerprint,
    frames_of,
    sound_files_of,
)
from training_recipe.batching.ids import Pairs
from training_recipe.batching.recutting import Recut
from training_recipe.corpora.corpus import Corpus, Example, check_corpus, load_corpus
from training_recipe.files.host_memory import made_once
from training_recipe.options.invocation import typed
from training_recipe.options.settings import MOST_TOKENS, TrainingSettings
from training_recipe.runs.folder import RunFolder
from training_recipe.searching.batches import ROOM
from training_recipe.searching.published import load_search
from training_recipe.searching.search import Search, in_language
from training_recipe.speech.vocabulary import SpeechVocabulary
from training_recipe.text.vocabulary import Vocabulary, build_vocabulary, load_vocabulary
from transformer_spec import Faults, TransformerConfig, UserError

EVALUATION_SHAPES = 3


@dataclass(frozen=True)
class Prepared:
    """All that training reads; ``longest_target`` counts eos and bounds decoding.

    ``search`` is the one that the model is judged by, but for its width and the outputs' lengths.
    ``corpus`` has no examples to train on: those are ids by now, which ``plan`` has, ``unknown``
    the shares of source and target tokens among them that the vocabularies lack.
    """

    corpus: Corpus
    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    config: TransformerConfig
    plan: BatchPlan
    valid_plan: BatchPlan
    longest_target: int
    fingerprint: str
    judged_fingerprint: str
    valid_fingerprint: str
    notes: list[str]
    unknown: tuple[float, float]
    search: Search = Search()

    def save(self, run: RunFolder) -> None:
        """Write config.json and vocabulary/."""
        self.config.save(run.config)
        run.vocabulary.mkdir(exist_ok=True)
        self.source_vocabulary.save(run.vocabulary, "source")
        self.target_vocabulary.save(run.vocabulary, "target")


def prepare_new(
    settings: TrainingSettings, model: dict[str, Any], shared: str | None = None
) -> Prepared:
    """Read the data and build the vocabularies; ``model`` lacks only their sizes.

    ``shared`` is a name that only the processes of this run know, the same in all of them: those of
    one host then hold the ids once. None: in the memory of this process.
    """
    corpus = _read(settings)
    source, target = build_vocabularies(settings, corpus)
    config = TransformerConfig(
        **model,
        source_vocab_size=source.size,
        target_vocab_size=target.size,
        **{name: getattr(target, name) for name in ("pad_id", "unk_id", "bos_id", "eos_id")},
    )
    return _prepare(settings, lambda: corpus, (source, target), config, shared=shared)


def prepare_from(
    settings: TrainingSettings,
    both: Vocabularies,
    config: TransformerConfig,
    search: Search | None,
    shared: str | None = None,
) -> Prepared:
    """Read the data for a model that is there already, with its vocabularies and search."""
    spoken = bool(config.feature_dim)
    return _prepare(settings, lambda: _read(settings, spoken), both, config, search, shared)


def prepare_again(
    settings: TrainingSettings, run: RunFolder, shared: str | None = None
) -> Prepared:
    """Read the data again; vocabularies and config are the run's.

    Where another process of this host has done so for ``shared``, no data is read.
    """
    source = load_vocabulary(run.vocabulary, "source")
    target = load_vocabulary(run.vocabulary, "target")
    config = TransformerConfig.load(run.config)
    search = load_search(run.search) if run.search.exists() else None

    def read() -> Corpus:
        try:
            return _read(settings, bool(config.feature_dim))
        except UserError as error:
            moved = (
                f"where data lies elsewhere now: --resume {typed(run.path)} --data (--valid, "
                "--test, --extra-data) NEW"
            )
            raise UserError(f"{error}; {moved}", error.faults) from None

    return _prepare(settings, read, (source, target), config, search, shared)


def _read(settings: TrainingSettings, spoken: bool = False) -> Corpus:
    return load_corpus(**_named_by(settings), spoken=spoken)


def check_data(settings: TrainingSettings) -> None:
    """Raise a UserError where what is said of the data is wrong, before anything is read."""
    check_corpus(**_named_by(settings))


def _named_by(settings: TrainingSettings) -> dict[str, Any]:
    """What the settings say of the data, as ``load_corpus`` takes it."""
    names = ("data", "source_lang", "target_lang", "columns", "valid", "test")
    return {name: getattr(settings, name) for name in names} | {"extra": settings.extra_data}


def build_vocabularies(settings: TrainingSettings, corpus: Corpus) -> Vocabularies:
    """The vocabularies of the training examples, one object twice if shared."""
    kinds, algorithm = settings.vocabulary_kinds(), settings.sentencepiece_algorithm
    sources = [example.source for example in corpus.train]
    targets = [text for example in corpus.train for text in example.targets]
    sizes = settings.source_vocab_size, settings.target_vocab_size
    if settings.shared_vocabulary:
        size = sizes[0] or sizes[1]
        shared = build_vocabulary(kinds[0], sources + targets, size, "shared", algorithm)
        return shared, shared
    faults, built = Faults(), list[Vocabulary]()
    for kind, texts, size, side in zip(
        kinds, (sources, targets), sizes, ("source", "target"), strict=True
    ):
        try:
            built.append(build_vocabulary(kind, texts, size, side, algorithm))
        except UserError as error:
            faults.take(error)
    faults.raise_if_any("cannot build the vocabularies")
    return built[0], built[1]


def _prepare(
    settings: TrainingSettings,
    read: Callable[[], Corpus],
    both: Vocabularies,
    config: TransformerConfig,
    search: Search | None = None,
    shared: str | None = None,
) -> Prepared:
    data, unshared = _encoded(settings, read, both, config, shared)
    vary = None
    if data.texts is not None:
        rate, seed = settings.bpe_dropout, settings.seed
        longest = config.max_source_length, config.max_length
        vary = Recut(data.texts, data.train, both, longest, rate, seed)
    plan = _plan(data.train, settings, config, both, vary)
    return Prepared(
        data.corpus,
        *both,
        config,
        plan,
        _plan(data.valid, _evaluated(settings), config, both),
        longest_target=int(data.train.target.lengths.max()) + both[1].frame.size,
        fingerprint=data.fingerprint,
        judged_fingerprint=fingerprint(_heard([*data.corpus.valid, *data.corpus.test], both)),
        valid_fingerprint=fingerprint(_heard(data.corpus.valid, both)),
        notes=[
            *data.corpus.notes,
            *data.notes,
            *unshared,
            *describe(data, both, plan),
            _epochs(plan, settings),
            *_alone(plan, settings),
            *_warming(settings),
        ],
        unknown=data.unknown,
        search=_search(search, both[1], config),
    )


def _heard(examples: list[Example], both: Vocabularies) -> list[Example]:
    """The examples with what their recordings hold in place of the names, which may change."""
    sounds = sound_files_of(both)
    if sounds is None:
        return examples
    return [replace(example, source=sounds.digest(example.source)) for example in examples]


def _search(search: Search | None, target: Vocabulary, config: TransformerConfig) -> Search:
    """The search that came with a model, or the usual one, in the language of its texts."""
    if isinstance(target, SpeechVocabulary):
        return target.search(config.decoder_start_id)
    return in_language(search or Search(), target)


def _encoded(
    settings: TrainingSettings,
    read: Callable[[], Corpus],
    both: Vocabularies,
    config: TransformerConfig,
    shared: str | None,
) -> tuple[Encoded, list[str]]:
    """The corpus in ids, and a note where they cannot be shared."""

    def make() -> Encoded:
        longest = config.max_source_length, config.max_length
        return encode(read(), both, longest, settings.bpe_dropout > 0)

    if shared is None or config.feature_dim:  # features lie in files already
        return make(), []
    # Processes that were given other settings share nothing, so that the difference shows.
    asked = json.dumps([asdict(settings), asdict(config)], sort_keys=True).encode()
    encoded, note = made_once(f"{shared}-{hashlib.sha256(asked).hexdigest()[:16]}", make)
    return encoded, [note] if note else []


def _plan(
    pairs: Pairs,
    settings: TrainingSettings,
    config: TransformerConfig,
    both: Vocabularies,
    vary: Vary | None = None,
) -> BatchPlan:
    start = both[1].start_id
    return BatchPlan(
        pairs,
        settings.batch_tokens,
        settings.batch_shapes,
        settings.seed,
        pad_id=config.pad_id,
        decoder_start_id=config.decoder_start_id if start is None else start,
        frames=frames_of(both),
        vary=vary,
        sounds=sound_files_of(both),
    )


def _evaluated(settings: TrainingSettings) -> TrainingSettings:
    """The settings with larger batches of fewer shapes, for losses without gradients."""
    shapes = min(settings.batch_shapes, EVALUATION_SHAPES)
    tokens = min(ROOM * settings.batch_tokens, MOST_TOKENS)
    return replace(settings, batch_tokens=tokens, batch_shapes=shapes)


def describe(data: Encoded, both: Vocabularies, plan: BatchPlan) -> list[str]:
    """Lines on data, vocabularies and batches for the start of the log."""
    corpus = data.corpus
    sizes = f"{data.examples:,} train, {len(corpus.valid):,} valid, {len(corpus.test):,} test"
    kinds = [f"{vocabulary.size:,} {vocabulary.kind}" for vocabulary in both]
    if sound_files_of(both) is not None:
        kinds[0] = both[0].kind
    shapes = "  ".join("x".join(map(str, shape)) for shape in plan.shapes)
    return [
        f"data {corpus.name}: {sizes}",
        f"vocabularies: source {kinds[0]}, target {kinds[1]}",
        f"batches: {plan.batches_per_epoch:,} an epoch, {plan.padding:.1%} padding, "
        f"{len(plan.shapes)} shapes (rows x source x target): {shapes}",
    ]


def _epochs(plan: BatchPlan, settings: TrainingSettings) -> str:
    batches, steps = settings.accumulate, settings.steps
    an_epoch = plan.batches_per_epoch / batches
    taken = f" of {batches} batches" if batches > 1 else ""
    return f"{steps:,} steps{taken}, {an_epoch:,.1f} an epoch: {steps / an_epoch:,.1f} epochs"


def _alone(plan: BatchPlan, settings: TrainingSettings) -> list[str]:
    """A note where pairs are larger than a batch may be."""
    most = max(max(source, target) for _, source, target in plan.shapes)
    if most <= settings.batch_tokens:
        return []
    return [
        f"note: some pairs have more tokens on a side than --batch-tokens {settings.batch_tokens:,}"
        f": each of them is a batch of its own, of up to {most:,} tokens"
    ]


def _warming(settings: TrainingSettings) -> list[str]:
    """A note where the learning rate never reaches its peak."""
    warmup, steps = settings.warmup_steps, settings.steps
    if warmup < steps:
        return []
    return [
        f"note: the learning rate rises in all {steps:,} steps, as --warmup-steps is {warmup:,}"
    ]


def default_run_path(settings: TrainingSettings, backend: str) -> Path:
    """The first of runs/DATA-BACKEND-1, -2, ... that does not exist."""
    stem = f"{Path(settings.data).name.split('.')[0]}-{backend}"
    count = 1
    while Path("runs", f"{stem}-{count}").exists():
        count += 1
    return Path("runs", f"{stem}-{count}")
