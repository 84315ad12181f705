"""Rules of tokens that were added to a tokenizer: whole words alone, spaces beside them with them.

The two programs behind published tokenizers mean different things by them. Of ``transformers``,
written in Python, a word ends at a space, and a token that is none goes to the text on one side;
of ``tokenizers`` it ends where no letter, digit or mark follows, and the text stays whole.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

LEFT, RIGHT, WORD = RULES = ("lstrip", "rstrip", "single_word")
PYTHON, TOKENIZERS = PROGRAMS = ("transformers", "tokenizers")
IN_WORDS = {"Nd", "Nl", "Pc"}  # categories of Unicode, beside all letters and marks
JOINERS = "\u200c\u200d"


@dataclass(frozen=True)
class AddedRules:
    """Tokens that have rules, and whose program's these are."""

    program: str
    tokens: Mapping[str, frozenset[str]]

    def cut(self, text: str, pattern: re.Pattern[str]) -> list[tuple[str, bool]]:
        """Parts of a text, and whether each is a token; ``pattern`` finds all that were added."""
        parts = self._in_turn if self.program == PYTHON else self._where_they_fit
        return [(part, is_token) for part, is_token in parts(text, pattern) if part]

    def _in_turn(self, text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, bool]]:
        """Every token changes the parts beside it, which may be no tokens any more, or tokens."""
        parts = [part for part in pattern.split(text) if part]
        added = {part for part in parts if pattern.fullmatch(part)}
        for n, token in enumerate(parts):
            rules = self.tokens.get(token, frozenset())
            left = parts[n - 1] if n else ""
            right = parts[n + 1] if n + 1 < len(parts) else ""
            if RIGHT in rules and right:
                parts[n + 1] = right.lstrip()
            if LEFT in rules and left:
                parts[n - 1] = left.rstrip()
            if WORD in rules and left and left[-1] != " ":
                parts[n - 1], parts[n] = parts[n - 1] + token, ""
            elif WORD in rules and right and right[0] != " ":
                parts[n + 1], parts[n] = token + parts[n + 1], ""
        yield from ((part, part in added) for part in parts)

    def _where_they_fit(self, text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, bool]]:
        done = 0
        for found in pattern.finditer(text):
            rules = self.tokens.get(found[0], frozenset())
            start, end = found.span()
            if WORD in rules and (_in_word(text[start - 1 : start]) or _in_word(text[end:][:1])):
                continue
            if LEFT in rules:
                start = max(len(text[:start].rstrip()), done)
            if RIGHT in rules:
                end = len(text) - len(text[end:].lstrip())
            yield text[done:start], False
            yield found[0], True
            done = end
        yield text[done:], False

    def content(self) -> dict[str, Any]:
        """Its JSON."""
        return {"of": self.program, "tokens": {n: sorted(x) for n, x in self.tokens.items()}}

    @classmethod
    def parse(cls, content: Any) -> Self | None:
        """What ``content`` gave, or nothing of nothing; a ValueError says what is not so."""
        if content is None:
            return None
        tokens = content.get("tokens") if isinstance(content, dict) else None
        if not isinstance(tokens, dict) or content.get("of") not in PROGRAMS:
            raise ValueError(f"its added_rules are {content!r}, and no rules of tokens")
        for name, rules in tokens.items():
            if not isinstance(rules, list) or not all(rule in RULES for rule in rules):
                raise ValueError(f"its rules of {name!r} are {rules!r}; there are {RULES}")
        return cls(content["of"], {name: frozenset(rules) for name, rules in tokens.items()})


def _in_word(character: str) -> bool:
    if not character or character in JOINERS:
        return bool(character)
    category = unicodedata.category(character)
    return category[0] in "LM" or category in IN_WORDS
