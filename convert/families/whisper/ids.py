"""The special ids of a Whisper, and the one that stands for padding in this house.

Its files pad with the end of text, which a model here has to learn. A token that nothing feeds and
nothing wants stands in its place; the file's own goes back out.
"""

from __future__ import annotations

from collections.abc import Collection

from training_recipe.speech.tokens import ENGLISH, LARGEST, MULTILINGUAL, SpeechTokens

PUBLISHED = (ENGLISH, MULTILINGUAL, LARGEST)


def known_tokens(vocab_size: object) -> SpeechTokens | None:
    """The tokens of one of the three published vocabularies; None of any other size."""
    return SpeechTokens.of(vocab_size) if vocab_size in PUBLISHED else None  # type: ignore[arg-type]


def padding(vocab_size: int, taken: Collection[int]) -> int:
    """<|startoflm|> where there is one, else the last id that is none of the ``taken``."""
    tokens = known_tokens(vocab_size)
    if tokens is not None and tokens.start_of_lm not in taken:
        return tokens.start_of_lm
    return next((n for n in reversed(range(vocab_size)) if n not in taken), 0)
