"""A model of speech that says what a test tells it to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from training_recipe.searching.search import Hypothesis, Search
from training_recipe.speech.tokens import SpeechTokens
from training_recipe.transcription.transcription import SpeechModel

ENGLISH, SEVERAL = SpeechTokens.of(51864), SpeechTokens.of(51865)


class Letters:
    """A tokenizer of which token n is a letter."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(97 + index % 26) for index in ids if index < 50256)

    def encode(self, text: str) -> list[int]:
        return [(ord(letter) - 97) % 26 for letter in text.strip() or text]


@dataclass
class FakeModel:
    """``says(features, search)`` is the output for a window; ``asked`` the searches, row by row.

    ``languages`` and ``silence`` are what the logits after the start say: a code and a probability.
    """

    says: Callable[[np.ndarray, Search], tuple[Sequence[int], float]]
    tokens: SpeechTokens = ENGLISH
    language: str = "fr"
    silence: float = 0.0
    asked: list[Search] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def hear(self, features: np.ndarray) -> FakeHeard:
        self.rows.append(len(features))
        return FakeHeard(self, features)

    def model(self) -> SpeechModel:
        return SpeechModel(self.hear, self.tokens, Letters(), 80, 448, (1, 2), (220, 50256))


@dataclass
class FakeHeard:
    model: FakeModel
    features: np.ndarray

    def logits(self, prompt: tuple[int, ...]) -> np.ndarray:
        tokens = self.model.tokens
        assert prompt[-1] == tokens.start
        found = np.full((len(self.features), len(prompt), tokens.vocab_size), -30.0)
        found[..., tokens.language(self.model.language)] = np.log(0.75)
        found[..., tokens.first_language] = np.log(0.25)
        found[..., tokens.no_speech] = np.log(self.model.silence / (1 - self.model.silence) + 1e-9)
        return found

    def decode(self, search: Search, rows: Sequence[int] | None = None) -> list[list[Hypothesis]]:
        found = []
        for row in range(len(self.features)) if rows is None else rows:
            self.model.asked.append(search)
            ids, total = self.model.says(self.features[row], search)
            found.append([Hypothesis(list(ids), total, total)])
        return found
