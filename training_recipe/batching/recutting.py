"""Subword regularization: the words of the training pairs cut anew in every epoch."""

from collections.abc import Sequence

import numpy as np

from training_recipe.batching.batches import IdPair, TextPair, fits
from training_recipe.text.vocabulary import Vocabulary


class Recut:
    """Pairs of texts, ``usual`` being their ids, cut as seed and epoch say.

    No cut is too long for the model: one of more than ``max_length`` tokens a side, in its frame,
    is replaced by the usual one.
    """

    def __init__(
        self,
        texts: Sequence[TextPair],
        usual: Sequence[IdPair],
        vocabularies: tuple[Vocabulary, Vocabulary],
        max_length: int,
        rate: float,
        seed: int,
    ) -> None:
        self._texts, self._usual = texts, usual
        self._vocabularies, self._max_length = vocabularies, max_length
        self._rate, self._seed = rate, seed

    def __call__(self, epoch: int) -> list[IdPair]:
        """An epoch's ids, those of negative epochs being for planning."""
        sides = [self._side(side, epoch) for side in (0, 1)]
        frames = self._vocabularies[0].frame, self._vocabularies[1].frame
        cut = zip(*sides, self._usual, strict=True)
        return [(s, t) if fits((s, t), self._max_length, frames) else usual for s, t, usual in cut]

    def _side(self, side: int, epoch: int) -> list[list[int]]:
        entropy = [self._seed, abs(epoch), int(epoch < 0), side]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        texts = [text[side] for text in self._texts]
        return self._vocabularies[side].sample(texts, self._rate, seed)
