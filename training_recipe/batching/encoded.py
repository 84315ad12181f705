"""A corpus as training needs it: ids of what it trains on, texts of what it is judged by."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from training_recipe.batching.batches import Frames, drop_long, encode_pairs, text_pairs
from training_recipe.batching.ids import Pairs, Texts
from training_recipe.corpora.corpus import Corpus
from training_recipe.sound.sound_files import SoundFiles
from training_recipe.text.vocabulary import Vocabulary

Vocabularies = tuple[Vocabulary, Vocabulary]
MUCH = 0.02  # unknown tokens in a side that are worth a note


@dataclass(frozen=True)
class Encoded:
    """Pairs that are not too long, and notes on the others.

    ``corpus`` has no examples to train on any more; there were ``examples``. ``texts`` are those
    of ``train``, where they are to be cut anew.
    """

    corpus: Corpus
    examples: int
    train: Pairs
    valid: Pairs
    texts: Texts | None
    fingerprint: str
    notes: list[str]


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
    return Encoded(
        _judged_by(corpus),
        len(corpus.train),
        train,
        valid,
        texts,
        fingerprint(train if sounds is None else sounds.pairs(train)),
        [*notes, *others, *(sounds.notes if sounds is not None else ()), *_unknown(train, both)],
    )


def _unknown(train: Pairs, both: Vocabularies) -> list[str]:
    """A note on each side of which a vocabulary, such as that of another model, lacks much."""
    notes = list[str]()
    for side, ids, vocabulary in zip(("source", "target"), train.sides, both, strict=True):
        texts = not isinstance(vocabulary, SoundFiles) and len(ids.flat) > 0
        share = np.count_nonzero(ids.flat == vocabulary.unk_id) / len(ids.flat) if texts else 0.0
        if share >= MUCH:
            notes.append(
                f"{side}: {share:.1%} of the tokens to train on are unknown to its vocabulary; "
                "what they say is not learned"
            )
    return notes


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
