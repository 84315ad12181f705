"""Pieces of a sentencepiece model under ids of their own, from a table or by their order.

Marian has a table, vocab.json, that numbers the pieces of two models. fairseq numbers the pieces of
one in their order, after four special tokens of its own, or as its dictionary lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from training_recipe.text.added_rules import PYTHON
from training_recipe.text.bpe_dropout import BpeDropout
from training_recipe.text.conventions import Conventions
from training_recipe.text.number_tables import read_table
from training_recipe.text.published import PublishedVocabulary
from training_recipe.text.vocabulary_kinds import without_surrogates
from transformer_spec.errors import UserError

SPACE = "\u2581"
COMPARED = 16  # texts that a cut with all merges is compared with the model's own on


class SentencePieceTable(PublishedVocabulary):
    """``model`` names the sentencepiece file, ``table`` the ids.

    ``table`` is {"file": NAME, "format": "json", "yaml" or "lines"} or {"pieces": [...]}: pieces
    with ids, or in the order of their ids after those in ``first``. {"from": N} are the model's own
    pieces from its N-th on. ``joined`` decodes without the model: pieces side by side.
    """

    kind = "sentencepiece_table"
    keys = ("model", "first", "table", "joined")

    def __init__(
        self, conventions: Conventions, files: Mapping[str, bytes], how: Mapping[str, Any]
    ) -> None:
        super().__init__(conventions, files, how)
        self._processor = sentencepiece_processor(files, how.get("model"))
        numbers = range(self._processor.get_piece_size())
        self.model_pieces = [self._processor.id_to_piece(number) for number in numbers]
        table = read_table(how.get("table"), how.get("first"), files, self.model_pieces)
        self._pieces = {index: piece for piece, index in table.items()}
        # What a text holds is never a special token, even where a piece is spelled like one.
        never = conventions.special.keys()
        self._ids = {piece: index for piece, index in table.items() if piece not in never}
        if conventions.rules is not None and conventions.rules.program == PYTHON:
            self._ids |= conventions.added  # of text that is no whole word, which it looks up too
        self._last = max(self._pieces)

    @property
    def unnumbered(self) -> list[str]:
        """Pieces of the model that have no id and are read as unknown."""
        known = self._pieces.values()
        plain = range(len(self.model_pieces))
        missing = set(self.model_pieces).difference(known)
        control = {self.model_pieces[n] for n in plain if self._processor.is_control(n)}
        return [piece for piece in self.model_pieces if piece in missing - control]

    def _last_id(self) -> int:
        return self._last

    def _cut(self, text: str) -> list[int]:
        pieces = self._processor.encode(without_surrogates(text), out_type=str)
        return [self._ids.get(piece, self.unk_id) for piece in pieces]

    def sample(self, texts: Iterable[str], rate: float, seed: int) -> list[list[int]]:
        """BPE-dropout; a UserError where merges that are left out would not be this model's."""
        begun = [self._begun(text) for text in texts]
        rests = [without_surrogates(rest) for _, rest in begun]
        dropout = BpeDropout(self._processor, self._ids, self.unk_id)
        some = rests[:COMPARED]
        if self._added or dropout(some, 0.0, seed) != [self._cut(text) for text in some]:
            raise UserError(
                f"{self.how['model']} cannot be cut by BPE-dropout: it is no plain model of "
                "algorithm bpe; train without --bpe-dropout"
            )
        return [b + ids for (b, _), ids in zip(begun, dropout(rests, rate, seed), strict=True)]

    def _piece(self, index: int) -> str | None:
        return self._pieces.get(index)

    def _join(self, ids: list[int]) -> str:
        pieces = [self._added.get(index) or self._pieces.get(index) for index in ids]
        known = [piece for piece in pieces if piece is not None]
        if not known:
            return ""
        if not self.how.get("joined"):
            return self._processor.decode_pieces(known).replace(SPACE, " ").strip()
        return "".join([known[0].replace(SPACE, ""), *known[1:]]).replace(SPACE, " ")


def sentencepiece_processor(files: Mapping[str, bytes], name: object) -> Any:
    """The processor of a model among files; a ValueError says what is wrong with it."""
    from sentencepiece import SentencePieceProcessor

    if not isinstance(name, str) or name not in files:
        raise ValueError("it names no sentencepiece model among its files")
    try:
        return SentencePieceProcessor(model_proto=files[name])  # pyright: ignore[reportCallIssue]
    except RuntimeError:
        raise ValueError(f"{name} is cut short, damaged, or no sentencepiece model") from None
