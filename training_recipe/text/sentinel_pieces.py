"""T5's pieces: a sentencepiece model under its own ids, tokens that stand for gaps, languages.

MADLAD's texts begin with the language of the output, whose token, ``<2de>``, is a piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from training_recipe.text.conventions import Conventions
from training_recipe.text.sentencepiece_table import SPACE, SentencePieceTable


class SentinelPieces(SentencePieceTable):
    """Pieces and sentinels are joined side by side; pieces of bytes are the characters they make.

    A sentinel is a token that was added: a text is cut at it, and an output shows it.
    """

    kind = "sentinel_pieces"

    def __init__(
        self, conventions: Conventions, files: Mapping[str, bytes], how: Mapping[str, Any]
    ) -> None:
        super().__init__(conventions, files, how)
        numbers = range(len(self.model_pieces))
        self._bytes = {self.model_pieces[n] for n in numbers if self._processor.is_byte(n)}

    def _begun(self, text: str) -> tuple[list[int], str]:
        """A language is text that is cut with the rest: the model writes a space before it."""
        before, rest = super()._begun(text)
        if not before or rest != text:
            return [], text
        return [], f"{self.token(before[0])} {text}"

    def _join(self, ids: list[int]) -> str:
        names = [self._added.get(index) or self._pieces.get(index) for index in ids]
        runs = groupby((name for name in names if name is not None), key=self._bytes.__contains__)
        parts = [part for of_bytes, run in runs for part in self._parts([*run], of_bytes)]
        if not parts:
            return ""
        return "".join([parts[0].replace(SPACE, ""), *parts[1:]]).replace(SPACE, " ")

    def _parts(self, names: list[str], of_bytes: bool) -> list[str]:
        return [self._processor.decode_pieces(names)] if of_bytes else names
