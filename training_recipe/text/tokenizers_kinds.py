"""Vocabularies that the library ``tokenizers`` reads: byte-level BPE, and a tokenizer.json."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from training_recipe.text.conventions import Conventions
from training_recipe.text.number_tables import read_table
from training_recipe.text.published import PublishedVocabulary
from training_recipe.text.vocabulary_kinds import NO_CHARACTER, without_surrogates

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class _TokenizersVocabulary(PublishedVocabulary):
    """Texts are cut and joined by a Tokenizer; ``stand_in`` replaces lone surrogates."""

    stand_in = NO_CHARACTER

    def __init__(
        self, conventions: Conventions, files: Mapping[str, bytes], how: Mapping[str, Any]
    ) -> None:
        super().__init__(conventions, files, how)
        self._tokenizer = self._built()
        self._tokenizer.encode_special_tokens = True  # their names in a text are text
        known: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self._pieces = {index: piece for piece, index in known.items()}
        self._last = max(self._pieces, default=0)

    @abstractmethod
    def _built(self) -> Any:
        """The library's Tokenizer; a ValueError says what is wrong with the files."""

    def _last_id(self) -> int:
        return self._last

    def _cut(self, text: str) -> list[int]:
        whole = without_surrogates(text, self.stand_in)
        return self._tokenizer.encode(whole, add_special_tokens=False).ids

    def _piece(self, index: int) -> str | None:
        return self._pieces.get(index)

    def _join(self, ids: list[int]) -> str:
        known = [index for index in ids if index in self._pieces or index in self._added]
        runs = groupby(known, key=self._added.get)
        return "".join(name * len([*run]) if name else self._text([*run]) for name, run in runs)

    def _text(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _named(self, key: str) -> bytes:
        name = self.how.get(key)
        if not isinstance(name, str) or name not in self.files:
            raise ValueError(f"it names no {key} among its files")
        return self.files[name]


class ByteLevelBPE(_TokenizersVocabulary):
    """Merges of bytes: ``vocabulary`` names vocab.json, ``merges`` merges.txt.

    ``prefix_space`` begins every text with a space. There is no unknown text.
    """

    kind = "byte_level_bpe"
    keys = ("vocabulary", "merges", "prefix_space")
    stand_in = REPLACEMENT

    def _built(self) -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        self._named("vocabulary")
        table = {"file": self.how["vocabulary"], "format": "json"}
        vocab = read_table(table, None, self.files, ())
        try:
            model = models.BPE(vocab, _merges(self._named("merges")), fuse_unk=False)
        except Exception as error:  # the library has no exception of its own
            raise ValueError(f"{self.how['merges']} and the vocabulary differ: {error}") from None
        tokenizer = Tokenizer(model)
        spaced = self.how.get("prefix_space") is True
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)  # pyright: ignore[reportAttributeAccessIssue]
        tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        return tokenizer


class TokenizerJson(_TokenizersVocabulary):
    """The whole pipeline of a tokenizer.json, which ``tokenizer`` names."""

    kind = "tokenizer_json"
    keys = ("tokenizer",)

    def _built(self) -> Any:
        from tokenizers import Tokenizer

        data = self._named("tokenizer")
        try:
            tokenizer = Tokenizer.from_str(data.decode("utf-8"))
        except Exception as error:  # the library has no exception of its own
            name = self.how["tokenizer"]
            raise ValueError(f"{name} is cut short, damaged or too new: {error}") from None
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def _merges(data: bytes) -> list[tuple[str, str]]:
    """Pairs of a merges.txt, in order."""
    lines = data.decode("utf-8").splitlines()
    pairs = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    for number, pair in enumerate(pairs, 1):
        if len(pair) != 2:
            raise ValueError(f"merge {number} is no pair: {' '.join(pair)!r}")
    return pairs  # pyright: ignore[reportReturnType]
