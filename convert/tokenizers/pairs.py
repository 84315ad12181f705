"""The vocabularies of both sides of one kind, from the same files or each from its own."""

from __future__ import annotations

from training_recipe.text.published import PublishedVocabulary
from training_recipe.text.sentencepiece_table import SentencePieceTable
from transformer_spec import UserError

Pair = tuple[PublishedVocabulary, PublishedVocabulary]
HALF = 0.5


def check_pieces(vocabulary: SentencePieceTable, model: str, table: str) -> None:
    """Raise a UserError where most pieces of a model have no id: they are of different models."""
    missing, pieces = vocabulary.unnumbered, len(vocabulary.model_pieces)
    if len(missing) > HALF * pieces:
        some = ", ".join(map(repr, missing[:3]))
        raise UserError(
            f"{table} gives {len(missing):,} of the {pieces:,} pieces of {model} no id ({some}, "
            "...): they are of different models"
        )
