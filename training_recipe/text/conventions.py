"""How a published vocabulary is used: its special ids, what stands around a text, its languages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from training_recipe.text.added_rules import AddedRules

LANGUAGE = "language"  # stands in a frame for the id of the language that is spoken
SPECIAL_IDS = ("pad_id", "unk_id", "bos_id", "eos_id")


@dataclass(frozen=True)
class Conventions:
    """What a description says beside the files.

    ``special`` are names and ids of what is no text, languages included; ``added`` those of whole
    tokens that a text is cut at before anything else. ``before`` and ``after`` are ids around a
    text, with "language" in its place. ``marks`` stand around the code of the language that a text
    may begin with. ``starts_with_language``: the decoder does. ``clean_up``: decoded text loses
    spaces before punctuation. ``rules`` are those of added tokens that have some.
    """

    pad_id: int
    unk_id: int
    bos_id: int
    eos_id: int
    special: Mapping[str, int]
    added: Mapping[str, int] = field(default_factory=dict)
    before: tuple[int | str, ...] = ()
    after: tuple[int | str, ...] = ()
    languages: Mapping[str, int] = field(default_factory=dict)
    language: str | None = None
    marks: tuple[str, str] | None = None
    starts_with_language: bool = False
    clean_up: bool = False
    rules: AddedRules | None = None

    def content(self, language: str | None) -> dict[str, Any]:
        """Its JSON, with the language that is spoken."""
        frame = {"before": list(self.before), "after": list(self.after)}
        options = {"starts_with_language": self.starts_with_language, "clean_up": self.clean_up}
        rules = {"added_rules": self.rules.content()} if self.rules else {}
        return {
            **{name: getattr(self, name) for name in SPECIAL_IDS},
            "special": dict(self.special),
            "added": dict(self.added),
            "frame": frame,
            "languages": dict(self.languages),
            "language": language,
            "marks": list(self.marks) if self.marks else None,
            **options,
            **rules,
        }

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Self:
        """What ``content`` gave; a ValueError names what is not so."""
        frame = content.get("frame")
        if not isinstance(frame, dict):
            raise ValueError("it has no frame")
        languages, language = _numbered(content, "languages"), content.get("language")
        if not (language is None or isinstance(language, str) and language in languages):
            raise ValueError(f"its language is {language!r}, which its languages do not have")
        return cls(
            *(_number(name, content.get(name)) for name in SPECIAL_IDS),
            special=_numbered(content, "special"),
            added=_numbered(content, "added"),
            before=_frame(frame.get("before"), languages),
            after=_frame(frame.get("after"), languages),
            languages=languages,
            language=language,
            marks=_marks(content.get("marks")),
            starts_with_language=content.get("starts_with_language") is True,
            clean_up=content.get("clean_up") is True,
            rules=AddedRules.parse(content.get("added_rules")),
        )


def _number(name: str, value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"its {name} is {value!r}, which is no id")
    return value


def _numbered(content: Mapping[str, Any], name: str) -> dict[str, int]:
    """Names and ids, of which no two are equal."""
    found = content.get(name)
    if not isinstance(found, dict) or "" in found:
        raise ValueError(f"its {name} are no names with ids")
    numbers = {key: _number(f"id of {key!r}", value) for key, value in found.items()}
    if len(set(numbers.values())) < len(numbers):
        raise ValueError(f"two of its {name} have one id")
    return numbers


def _frame(parts: object, languages: Mapping[str, int]) -> tuple[int | str, ...]:
    if not isinstance(parts, list):
        raise ValueError(f"its frame has {parts!r}, which are no ids")
    place = LANGUAGE if languages else None
    return tuple(p if p == place else _number("frame", p) for p in parts)


def _marks(given: object) -> tuple[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, list) or [type(mark) for mark in given] != [str, str] or "" in given:
        raise ValueError(f"its marks are {given!r}, and not two texts")
    return given[0], given[1]


def split_at(names: Mapping[str, int]) -> re.Pattern[str]:
    """A pattern of the names, longer ones first; of none at all, one that is nowhere."""
    longest = sorted(names, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest))})" if longest else "(?!)")
