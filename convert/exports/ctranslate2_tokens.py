"""The token strings of a CTranslate2 model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from training_recipe.searching.search import Search, in_language, never_produced, prompt_of
from training_recipe.text.model_vocabularies import Pair, small_letters
from training_recipe.text.published import PublishedVocabulary
from training_recipe.text.vocabulary import Vocabulary
from training_recipe.text.vocabulary_kinds import SPECIAL_PIECES
from transformer_spec import TransformerConfig


@dataclass(frozen=True)
class Tokens:
    """What stands for each id of either side, and the vocabularies that make them of texts.

    A model that comes without vocabularies has the numbers themselves: "0", "1" and so on. Whoever
    makes those also knows whether the model reads an end of the source, so none is added to them;
    nor is it to what a published vocabulary frames by itself. ``small`` are the capitals that are
    read as small letters, the source lacking them.
    """

    source: list[str]
    target: list[str]
    pair: Pair | None = None
    small: dict[int, str] = field(default_factory=dict)

    def settings(
        self, config: TransformerConfig, search: Search | None = None
    ) -> dict[str, str | bool]:
        """The special tokens by the names of CTranslate2's config.json, and what texts end with.

        The decoder starts as in ``search``, which is what the model was published with.
        """
        asked = search or Search()
        asked = in_language(asked, self.pair[1]) if self.pair else asked
        ids = {
            "unk_token": config.unk_id if self.pair is None else self.pair[1].unk_id,
            "bos_token": config.bos_id,
            "eos_token": config.eos_id,
            "decoder_start_token": prompt_of(asked, config)[0],
        }
        names = {name: self.target[number] for name, number in ids.items()}
        return names | {"add_source_eos": self.pair is not None and not is_framed(self.pair[0])}

    def suppressed(self, config: TransformerConfig) -> list[list[str]]:
        """What our searches never produce, for ``suppress_sequences``."""
        return [[self.target[number]] for number in np.flatnonzero(never_produced(config))]


def is_framed(vocabulary: Vocabulary) -> bool:
    """Whether a vocabulary says by itself what stands around a text."""
    return isinstance(vocabulary, PublishedVocabulary)


def tokens_of(config: TransformerConfig, pair: Pair | None) -> Tokens:
    """The tokens of a model's vocabularies; the numbers where there are none."""
    rows = config.source_vocab_size, config.target_vocab_size
    if pair is None:
        source, target = (list(map(str, range(count))) for count in rows)
        return Tokens(source, target)
    if any(map(is_framed, pair)):
        source, target = (
            told_apart([v.token(i) for i in range(n)]) for v, n in zip(pair, rows, strict=True)
        )
        return Tokens(source, target, pair)
    pieces = [[v.token(i) for i in range(len(SPECIAL_PIECES), v.size)] for v in pair]
    special = special_tokens(set().union(*pieces))
    source, target = ([*special, *listed] for listed in pieces)
    letters = (chr(number) for number in range(sys.maxunicode + 1))
    capitals = [letter for letter in letters if letter != letter.lower()]
    return Tokens(source, target, pair, small_letters(capitals, pair[0]))


def told_apart(tokens: Sequence[str]) -> list[str]:
    """The tokens, of equal ones all but the first with underscores behind them.

    CTranslate2 looks ids up by token: each token has to be there once.
    """
    if max(Counter(tokens).values(), default=1) == 1:
        return list(tokens)
    found: dict[str, None] = {}
    taken = set(tokens)
    for token in tokens:
        name = token
        while name in found or (name != token and name in taken):
            name += "_"
        found[name] = None
    return list(found)


def special_tokens(taken: set[str]) -> list[str]:
    """``<pad> <unk> <s> </s>``, with underscores behind them where words of a text have the name.

    CTranslate2 looks ids up by token: each token has to be there once.
    """
    names = [str(piece) for piece in SPECIAL_PIECES]
    while not taken.isdisjoint(names):
        names = [f"{name}_" for name in names]
    return names
