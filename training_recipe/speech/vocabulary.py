"""What a model of speech writes, as training reads it: a language, a task, a text, the end.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.3. A
text begins with a blank, as what these models were trained on does.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from training_recipe.searching.search import GENERATE, Search
from training_recipe.speech.tokenizer import FILES, SpeechTokenizer, repaired
from training_recipe.speech.tokens import suppressed, suppressed_first
from training_recipe.text.frames import Frame
from training_recipe.text.languages import language_of
from training_recipe.text.vocabulary_kinds import Side, Vocabulary, write_description
from transformer_spec.errors import UserError

BLANK = " "
SHOWN = 4  # languages


class SpeechVocabulary(Vocabulary):
    """The tokenizer of a folder, whose ``files`` are kept; what is said is transcribed.

    Without timestamps. A model of several languages needs the one that is ``spoken``.
    """

    kind = "speech"

    def __init__(
        self, tokenizer: SpeechTokenizer, files: Mapping[str, bytes], language: str | None = None
    ) -> None:
        self.tokenizer, self.files, self.language = tokenizer, dict(files), language
        tokens = tokenizer.tokens
        self.pad_id = tokens.start_of_lm
        self.unk_id = self.bos_id = self.eos_id = tokens.end
        if tokens.multilingual:
            self.languages = {code: tokens.language(code) for code in tokens.languages}

    @classmethod
    def load(cls, folder: Path, vocab_size: int) -> Self:
        """That of a folder's tokenizer; a UserError where there is none that fits."""
        tokenizer = SpeechTokenizer.load(folder, vocab_size)
        there = (name for name in FILES if (folder / name).is_file())
        return cls(tokenizer, {name: (folder / name).read_bytes() for name in there})

    @property
    def size(self) -> int:
        return self.tokenizer.tokens.vocab_size

    @property
    def frame(self) -> Frame:
        tokens = self.tokenizer.tokens
        if tokens.multilingual and self.language is None:
            some = ", ".join(list(self.languages)[:SHOWN])
            raise UserError(
                f"what is said needs a language, as in --languages fr; the model has "
                f"{len(self.languages)}, such as {some}"
            )
        return Frame(tokens.prompt(self.language)[1:], (tokens.end,))

    def speaking(self, code: str) -> Self:
        other = copy.copy(self)
        other.language = language_of(code, self.languages)
        return other

    def search(self, start_id: int) -> Search:
        """How what is said is written: after the prompt, without what is never said."""
        encode, tokens = self.tokenizer.encode, self.tokenizer.tokens
        return Search(
            rule=GENERATE,
            prompt=(start_id, *self.frame.before),
            suppressed=suppressed(tokens, encode),
            suppressed_first=suppressed_first(tokens, encode),
        )

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(BLANK + text.lstrip())

    def sample(self, texts: Iterable[str], rate: float, seed: int) -> list[list[int]]:
        raise UserError(f"a vocabulary of kind {self.kind} cannot be cut by BPE-dropout")

    def token(self, index: int) -> str:
        return self.tokenizer.spelled()[index]

    def _join(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids).strip()

    def save(self, folder: Path, side: Side) -> None:
        for name, data in self.files.items():
            kept = (folder / name).read_bytes() if (folder / name).exists() else None
            if kept is None:
                (folder / name).write_bytes(data)
            elif kept not in (data, repaired(name, data)):
                raise UserError(f"{folder / name} exists and is not the file of the {side} texts")
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        content = {"files": digests, "size": self.size, "language": self.language}
        write_description(folder, side, self.kind, content)

    @classmethod
    def read(cls, content: dict[str, Any], folder: Path) -> Self:
        """The vocabulary of a parsed description; ValueError says what is wrong with it."""
        size, language = content.get("size"), content.get("language")
        if not isinstance(size, int) or not (language is None or isinstance(language, str)):
            raise ValueError("its size and language are not those of a vocabulary of speech")
        found = cls.load(folder, size)
        return found if language is None else found.speaking(language)
