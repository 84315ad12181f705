"""Subword regularization: the words of the training pairs cut anew in every epoch."""

import numpy as np

from training_recipe.batching.batches import longer
from training_recipe.batching.ids import Ids, Pairs, Texts, either
from training_recipe.text.vocabulary import Vocabulary


class Recut:
    """Pairs of texts, ``usual`` being their ids, cut as seed and epoch say.

    No cut is too long for the model: one of more than ``max_length`` tokens a side, or more
    than its own, in its frame, is replaced by the usual one.
    """

    def __init__(
        self,
        texts: Texts,
        usual: Pairs,
        vocabularies: tuple[Vocabulary, Vocabulary],
        max_length: int | tuple[int, int],
        rate: float,
        seed: int,
    ) -> None:
        self._texts, self._usual = texts, usual
        self._longest = max_length if isinstance(max_length, tuple) else (max_length, max_length)
        self._vocabularies = vocabularies
        self._rate, self._seed = rate, seed

    def __call__(self, epoch: int) -> Pairs:
        """An epoch's ids, those of negative epochs being for planning."""
        cut = Pairs(*(self._side(side, epoch) for side in (0, 1)))
        frames = self._vocabularies[0].frame, self._vocabularies[1].frame
        too_long = longer(cut, *self._longest, frames)
        return either(cut, self._usual, too_long)

    def _side(self, side: int, epoch: int) -> Ids:
        entropy = [self._seed, abs(epoch), int(epoch < 0), side]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return Ids.of(self._vocabularies[side].sample(self._texts.side(side), self._rate, seed))
