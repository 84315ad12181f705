"""Vocabularies that the library ``tokenizers`` reads: byte-level BPE, and a tokenizer.json."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Collection, Mapping
from itertools import groupby
from typing import Any

from training_recipe.text.conventions import Conventions
from training_recipe.text.number_tables import read_table
from training_recipe.text.published import PublishedVocabulary
from training_recipe.text.vocabulary_kinds import NO_CHARACTER, without_surrogates
from transformer_spec.json_text import parse_json

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HIDDEN = "\ufdd0"  # a code point that never becomes a character


class _TokenizersVocabulary(PublishedVocabulary):
    """Texts are cut and joined by a Tokenizer; ``stand_in`` replaces lone surrogates."""

    stand_in = NO_CHARACTER

    def __init__(
        self, conventions: Conventions, files: Mapping[str, bytes], how: Mapping[str, Any]
    ) -> None:
        super().__init__(conventions, files, how)
        self._tokenizer = self._built()
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
        merges = read_merges(self._named("merges"), self.how["merges"])
        try:
            model = models.BPE(vocab, merges, fuse_unk=False)
        except Exception as error:  # the library has no exception of its own
            files = f"{self.how['merges']} and {self.how['vocabulary']}"
            raise ValueError(f"{files} do not fit together: {error}") from None
        tokenizer = Tokenizer(model)
        spaced = self.how.get("prefix_space") is True
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)  # pyright: ignore[reportAttributeAccessIssue]
        tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        return tokenizer


class TokenizerJson(_TokenizersVocabulary):
    """The way from text to ids of a tokenizer.json, which ``tokenizer`` names."""

    kind = "tokenizer_json"
    keys = ("tokenizer",)

    def _built(self) -> Any:
        from tokenizers import Tokenizer

        data, name = self._named("tokenizer"), self.how["tokenizer"]
        try:
            content = parse_json(data.decode("utf-8"))
            _hide(content, self.conventions.special.keys())
            return Tokenizer.from_str(json.dumps(content))
        except Exception as error:  # the library has no exception of its own
            raise ValueError(f"{name} is cut short, damaged or too new: {error}") from None

    def _cut(self, text: str) -> list[int]:
        if HIDDEN in text and self.special_names_in(text):
            text = text.replace(HIDDEN, self.stand_in)
        return super()._cut(text)


def _hide(content: dict[str, Any], special: Collection[str]) -> None:
    """Give special tokens names that no text has: even without them, Unigram would find </s>."""

    def hidden(name: Any) -> Any:
        return HIDDEN + name if isinstance(name, str) and name in special else name

    content |= {"truncation": None, "padding": None, "post_processor": None}
    model, vocab = content["model"], content["model"]["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {hidden(piece): index for piece, index in vocab.items()}
        model["unk_token"] = hidden(model.get("unk_token"))
    else:
        model["vocab"] = [[hidden(row[0]), *row[1:]] for row in vocab]
    for token in content.get("added_tokens") or []:
        token["content"] = hidden(token["content"])


def read_merges(data: bytes, name: str) -> list[tuple[str, str]]:
    """Pairs of a merges.txt, in order; a ValueError names a line that is none."""
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is damaged: it is not UTF-8") from None
    pairs = []
    for number, line in enumerate((line.removesuffix("\r") for line in lines), 1):
        left, space, right = line.partition(" ")
        if line and not line.startswith("#version"):
            if not left or not space or not right or " " in right:
                raise ValueError(f"line {number} of {name} is no pair: {line!r}")
            pairs.append((left, right))
    return pairs
