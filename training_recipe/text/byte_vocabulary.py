"""ByT5: the bytes of a text in UTF-8 are its ids, behind three special ones; there is no file."""

from __future__ import annotations

from typing import Any, Self

from training_recipe.text.conventions import Conventions
from training_recipe.text.published import PublishedVocabulary
from training_recipe.text.vocabulary_kinds import without_surrogates

SPECIAL, BYTES = 3, 256
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class ByteVocabulary(PublishedVocabulary):
    """A byte's id is its number and three. Bytes of no character are left out of a text."""

    kind = "bytes"
    keys = ()

    def _last_id(self) -> int:
        return SPECIAL + BYTES - 1

    def _cut(self, text: str) -> list[int]:
        return [SPECIAL + byte for byte in without_surrogates(text, REPLACEMENT).encode()]

    def _piece(self, index: int) -> str | None:
        byte = index - SPECIAL
        if not 0 <= byte < BYTES:
            return None
        return chr(byte) if chr(byte).isascii() and chr(byte).isprintable() else f"<0x{byte:02X}>"

    def _join(self, ids: list[int]) -> str:
        return b"".join(map(self._bytes, ids)).decode(errors="ignore")

    def _bytes(self, index: int) -> bytes:
        if index in self._added:
            return self._added[index].encode()
        byte = index - SPECIAL
        return bytes([byte]) if 0 <= byte < BYTES else b""

    @classmethod
    def read(cls, content: dict[str, Any], folder: object) -> Self:
        """The vocabulary of a parsed description; ValueError says what is wrong with it."""
        return cls(Conventions.parse(content), {}, {})
