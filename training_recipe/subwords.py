"""Subword regularization: the words of the training pairs cut anew in every epoch."""

from collections.abc import Sequence

import numpy as np

from training_recipe.batches import IdPair, encode_pairs, fits
from training_recipe.corpora import Example
from training_recipe.vocabulary import Vocabulary


class Recut:
    """The pairs of examples that fit into ``max_length``, cut as seed and epoch say.

    What is cut is too long for no model: cuts of more than ``max_length`` tokens a side, eos
    included, are replaced by the usual one.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        vocabularies: tuple[Vocabulary, Vocabulary],
        max_length: int,
        rate: float,
        seed: int,
    ) -> None:
        texts = [(example.source, text) for example in examples for text in example.targets]
        pairs = encode_pairs(examples, *vocabularies)
        kept = [number for number, pair in enumerate(pairs) if fits(pair, max_length)]
        self._texts, self._usual = [texts[n] for n in kept], [pairs[n] for n in kept]
        self._vocabularies, self._max_length = vocabularies, max_length
        self._rate, self._seed = rate, seed

    def __call__(self, epoch: int) -> list[IdPair]:
        """An epoch's ids, those of negative epochs being for planning."""
        sides = [self._side(side, epoch) for side in (0, 1)]
        cut = zip(*sides, self._usual, strict=True)
        return [(s, t) if fits((s, t), self._max_length) else usual for s, t, usual in cut]

    def _side(self, side: int, epoch: int) -> list[list[int]]:
        entropy = [self._seed, abs(epoch), int(epoch < 0), side]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        texts = [text[side] for text in self._texts]
        return self._vocabularies[side].sample(texts, self._rate, seed)
