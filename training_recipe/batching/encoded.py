"""A corpus as training needs it: ids of what it trains on, texts of what it is judged by."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from training_recipe.batching.batches import Frames, drop_long, encode_pairs, text_pairs
from training_recipe.batching.ids import Ids, Pairs, Texts
from training_recipe.corpora.corpus import Corpus
from training_recipe.sound.sound_files import SoundFiles
from training_recipe.text.vocabulary import Vocabulary

Vocabularies = tuple[Vocabulary, Vocabulary]
PRIVATE = "\ue000"  # a character that no text has
MUCH = 0.02  # share of unknown tokens in a side that is worth a note
MOST = 0.5  # from this on the vocabulary is one of other texts


@dataclass(frozen=True)
class Encoded:
    """Pairs that are not too long, and notes on the others.

    ``corpus`` has no examples to train on any more; there were ``examples``. ``texts`` are those
    of ``train``, where they are to be cut anew. ``unknown`` are the shares of source and target
    tokens to train on that the vocabularies lack.
    """

    corpus: Corpus
    examples: int
    train: Pairs
    valid: Pairs
    texts: Texts | None
    fingerprint: str
    notes: list[str]
    unknown: tuple[float, float]


def encode(
    corpus: Corpus, both: Vocabularies, max_length: int | tuple[int, int], with_texts: bool
) -> Encoded:
    """The ids of a corpus; a UserError where all pairs of a part are too long."""
    frames, sounds = frames_of(both), sound_files_of(both)
    if sounds is not None:
        parts = corpus.train, corpus.valid, corpus.test
        sounds.hear(example.source for part in parts for example in part)
    train, kept, notes = drop_long(
        encode_pairs(corpus.train, *both), max_length, "training pairs", frames
    )
    valid, _, others = drop_long(
        encode_pairs(corpus.valid, *both), max_length, "validation pairs", frames
    )
    texts = Texts.of(compress(text_pairs(corpus.train), kept)) if with_texts else None
    unknown = _unknown(train, both)
    return Encoded(
        _judged_by(corpus),
        len(corpus.train),
        train,
        valid,
        texts,
        fingerprint(train if sounds is None else sounds.pairs(train)),
        [*notes, *others, *(sounds.notes if sounds is not None else ()), *_lacking(unknown)],
        unknown,
    )


def _unknown(train: Pairs, both: Vocabularies) -> tuple[float, float]:
    """The shares of tokens that the vocabularies, such as those of another model, lack.

    The piece of a space that sentencepiece puts before every unknown word is no token here.
    """

    def share(ids: Ids, vocabulary: Vocabulary) -> float:
        unknown = np.count_nonzero(ids.flat == vocabulary.unk_id)
        if isinstance(vocabulary, SoundFiles) or not unknown:
            return 0.0
        before = set(vocabulary.encode(PRIVATE)) - {vocabulary.unk_id}
        return unknown / np.count_nonzero(~np.isin(ids.flat, sorted(before)))

    return share(train.source, both[0]), share(train.target, both[1])


def _lacking(unknown: tuple[float, float]) -> list[str]:
    """A note on each side of which much is unknown."""
    return [f"{fault}; what they say is not learned" for fault in unknown_sides(unknown, MUCH)]


def unknown_sides(unknown: tuple[float, float], least: float) -> list[str]:
    """The sides of whose tokens at least such a share is unknown, in words."""
    sides = zip(("source", "target"), unknown, strict=True)
    told = "of the tokens to train on are unknown to its vocabulary"
    return [f"{side}: {share:.1%} {told}" for side, share in sides if share >= least]


def _judged_by(corpus: Corpus) -> Corpus:
    """A copy without what is trained on.

    The texts of the original lie among those of ``train`` in memory, which Python gives back in
    blocks: not while one text of a block is used.
    """
    return pickle.loads(pickle.dumps(replace(corpus, train=[])))


def frames_of(both: Vocabularies) -> Frames:
    """What stands around the ids of a source and of a target."""
    return both[0].frame, both[1].frame


def sound_files_of(both: Vocabularies) -> SoundFiles | None:
    """The sources of a model that hears."""
    return both[0] if isinstance(both[0], SoundFiles) else None


def fingerprint(pairs: Iterable[object]) -> str:
    """A hash of pairs or examples: a run is not continued on other data than it began with."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(repr(pair).encode())
    return digest.hexdigest()
