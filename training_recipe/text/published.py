"""Vocabularies that came with a model: ids of their own, languages, files kept byte for byte."""

from __future__ import annotations

import copy
import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from training_recipe.text.conventions import Conventions, split_at
from training_recipe.text.frames import Frame
from training_recipe.text.languages import language_of, offered
from training_recipe.text.vocabulary_kinds import Side, Vocabulary, write_description
from transformer_spec.errors import UserError

# What a library takes from a decoded text where its settings ask for it: spaces before these.
CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class PublishedVocabulary(Vocabulary):
    """A tokenizer's own files, by name, and what is to be done with them.

    A text is text: names of special tokens in it are cut like other words. Its decoded form has
    none of them, as in the library that a model comes from; neither has it unknown tokens.
    """

    keys: ClassVar[tuple[str, ...]]  # of a description, which say which file is what

    def __init__(
        self, conventions: Conventions, files: Mapping[str, bytes], how: Mapping[str, Any]
    ) -> None:
        """``how`` says which file is what to the kind; ValueError where a file is not that."""
        self.conventions, self.files, self.how = conventions, dict(files), dict(how)
        self.pad_id, self.unk_id = conventions.pad_id, conventions.unk_id
        self.bos_id, self.eos_id = conventions.bos_id, conventions.eos_id
        self.languages = conventions.languages
        self._special = {number: name for name, number in conventions.special.items()}
        self._around = frozenset(self._special) - {self.unk_id}
        self._added = {number: name for name, number in conventions.added.items()}
        self._find_special = split_at(conventions.special)
        self._find_added = split_at(conventions.added)
        self._speak(conventions.language)

    def _speak(self, language: str | None) -> None:
        self.language = language
        starts = self.conventions.starts_with_language and language is not None
        self.start_id = self.languages[language] if starts and language is not None else None

    def speaking(self, code: str) -> Self:
        other = copy.copy(self)
        other._speak(language_of(code, self.languages))
        return other

    @property
    def begins_with_target(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether a text begins with the language of the output and not with its own."""
        return self.conventions.marks is not None and bool(self.languages)

    @property
    def frame(self) -> Frame:
        """Ids around a text; a UserError where they need a language and none is chosen."""
        before, after = self.conventions.before, self.conventions.after
        return Frame(self._framed(before), self._framed(after))

    def _framed(self, parts: tuple[int | str, ...]) -> tuple[int, ...]:
        return tuple(part if isinstance(part, int) else self._language_id() for part in parts)

    def _language_id(self) -> int:
        if self.language is None:
            raise UserError(f"the model's texts need a language; {offered(self.languages)}")
        return self.languages[self.language]

    def special_names_in(self, text: str) -> list[str]:
        return list(dict.fromkeys(self._find_special.findall(text)))

    @property
    def size(self) -> int:
        return max(self._last_id(), *self._special, *self._added) + 1

    @abstractmethod
    def _last_id(self) -> int:
        """The largest id of a piece of text."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, the language that it begins with (``>>deu<<``) included."""
        before, rest = self._begun(text)
        ids: list[int] = []
        for part, is_token in self._parts_of(rest):
            ids += [self.conventions.added[part]] if is_token else self._cut(part)
        return [*before, *ids]

    def _parts_of(self, text: str) -> list[tuple[str, bool]]:
        """A text cut at the tokens that were added, and whether each part is one."""
        rules = self.conventions.rules
        if rules is not None:
            return rules.cut(text, self._find_added)
        parts = self._find_added.split(text) if self._added else [text]
        return [(part, number % 2 == 1) for number, part in enumerate(parts) if part]

    def _begun(self, text: str) -> tuple[list[int], str]:
        """The id of the language in front of a text, if that is its place, and the rest."""
        marks = self.conventions.marks
        if marks is None:
            return [], text
        found = re.match(f"{re.escape(marks[0])}(\\S+?){re.escape(marks[1])}", text)
        if found and not self.languages:
            return [self.unk_id], text[found.end() :]
        if found:
            return [self.languages[language_of(found[0], self.languages)]], text[found.end() :]
        if self.language is not None or len(self.languages) > 1:
            return [self._language_id()], text
        return [], text

    def sample(self, texts: Iterable[str], rate: float, seed: int) -> list[list[int]]:
        """Ids of texts cut at random; a UserError where a kind cannot do that as a seed says."""
        raise UserError(f"a vocabulary of kind {self.kind} cannot be cut by BPE-dropout")

    @abstractmethod
    def _cut(self, text: str) -> list[int]:
        """Ids of a text without tokens that were added."""

    def token(self, index: int) -> str:
        name = self._special.get(index) or self._added.get(index) or self._piece(index)
        return f"<id {index}>" if name is None else name

    @abstractmethod
    def _piece(self, index: int) -> str | None:
        """The piece of an id that is neither special nor added; None where there is none."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of some ids up to the first eos behind a token, as the model's library writes it.

        Special tokens, unknown ones among them, and ids without a piece are left out.
        """
        text = super().decode(ids)
        for mark in CLEANED if self.conventions.clean_up else ():
            text = text.replace(mark, mark.strip(" "))
        return text

    def _up_to_eos(self, ids: Iterable[int]) -> Iterator[int]:
        begun = False
        for index in map(int, ids):
            if begun and index == self.eos_id:
                return
            begun = begun or index not in self._around
            if index not in self._special:
                yield index

    def save(self, folder: Path, side: Side) -> None:
        for name, content in self.files.items():
            path = folder / name
            if not path.exists():
                path.write_bytes(content)
            elif path.read_bytes() != content:
                raise UserError(f"{path} exists and is not the file of the {side} vocabulary")
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        content = {"files": digests, **self.how, **self.conventions.content(self.language)}
        write_description(folder, side, self.kind, content)

    @classmethod
    def read(cls, content: dict[str, Any], folder: Path) -> Self:
        """The vocabulary of a parsed description; ValueError says what is wrong with it."""
        named = content.get("files")
        if not isinstance(named, dict) or not named:
            raise ValueError("it names no files beside it")
        files = {name: _read_file(folder, name, digest) for name, digest in named.items()}
        return cls(Conventions.parse(content), files, {k: content.get(k) for k in cls.keys})


def _read_file(folder: Path, name: str, digest: object) -> bytes:
    if Path(name).name != name:
        raise ValueError(f"it names a file that does not lie beside it, {name!r}")
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{name} is not the file it was saved with (its SHA-256 differs)")
    return data
