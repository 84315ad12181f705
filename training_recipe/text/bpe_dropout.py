"""BPE-dropout (Provilkov et al. 2020, section 3): words cut by merges some of which are left out.

sentencepiece has it too, but draws other cuts in every process whatever the seed, so that no run
could be resumed as it began.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

SPACE = "\u2581"  # sentencepiece's mark of a space, the first character of every word


class BpeDropout:
    """Cuts texts with the merges of a sentencepiece model of algorithm bpe.

    ``ids`` and ``unknown`` are other ids than the model's own.
    """

    def __init__(
        self, processor: Any, ids: Mapping[str, int] | None = None, unknown: int | None = None
    ) -> None:
        self._normalize = processor.normalize
        self._unknown: int = processor.unk_id() if unknown is None else unknown
        numbers = range(processor.get_piece_size())
        plain = [i for i in numbers if not processor.is_control(i) and not processor.is_unknown(i)]
        own: dict[str, int] = {processor.id_to_piece(i): i for i in plain}
        self._ids = own if ids is None else ids
        # A merge is made the earlier the higher the score of what it makes.
        self._ranks = {piece: -processor.get_score(i) for piece, i in own.items()}

    def __call__(self, texts: Iterable[str], rate: float, seed: int) -> list[list[int]]:
        """Ids of each text, every possible merge left out with probability ``rate`` each time."""
        draw = random.Random(seed).random
        return [self._cut(text, rate, draw) for text in texts]

    def _cut(self, text: str, rate: float, draw: Callable[[], float]) -> list[int]:
        words = (SPACE + word for word in self._normalize(text).split(SPACE) if word)
        pieces = (piece for word in words for piece in self._pieces(word, rate, draw))
        ids: list[int] = []
        for piece in pieces:
            index = self._ids.get(piece, self._unknown)
            if index != self._unknown or ids[-1:] != [index]:  # unknown ones in a row are one
                ids.append(index)
        return ids

    def _pieces(self, word: str, rate: float, draw: Callable[[], float]) -> list[str]:
        """Merge the best pair that is not left out, the first of equals, until there is none."""
        pieces = list(word)
        while len(pieces) > 1:
            best, place = float("inf"), -1
            for i in range(len(pieces) - 1):
                rank = self._ranks.get(pieces[i] + pieces[i + 1])
                if rank is not None and rank < best and draw() >= rate:
                    best, place = rank, i
            if place < 0:
                break
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        return pieces
