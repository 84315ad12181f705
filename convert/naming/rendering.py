"""The TOML text of a table of names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformer_spec.errors import printable_name

# A line of the text: its section, and its key.
Place = tuple[str, str]
BARE = re.compile(r"[A-Za-z0-9_-]+")
SHORT = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def render(
    content: Mapping[str, Any], comments: Mapping[Place, str], heading: Sequence[str] = ()
) -> str:
    """What ``content`` says as TOML; a comment stands behind its line, ``heading`` above all."""
    lines = [_comment(line) for line in heading]
    sections = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    top = {key: value for key, value in content.items() if key not in sections}
    lines += _lines("", top, comments)
    for section, values in sections.items():
        if values:
            lines += ["", f"[{section}]", *_lines(section, values, comments)]
    return "\n".join(lines) + "\n"


def _lines(section: str, values: Mapping[str, Any], comments: Mapping[Place, str]) -> list[str]:
    found = list[str]()
    for key, value in values.items():
        line, comment = f"{_key(key)} = {_value(value)}", comments.get((section, key))
        found.append(f"{line}  {_comment(comment)}" if comment else line)
    return found


def _comment(text: str) -> str:
    return f"# {printable_name(text)}" if text else "#"


def _key(key: str) -> str:
    return key if BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    """A basic string of TOML."""
    escaped = (SHORT.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in text)
    return f'"{"".join(escaped)}"'


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items())} }}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)
