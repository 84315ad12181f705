"""A flat mapping of scalars and lists, in the YAML that Marian puts into its model files.

Read are ``key: value``, ``key:`` with a list below it (``- item`` lines, or ``[]`` and ``[a, b]``),
blank lines and comment lines. Everything else of YAML is refused with its line: no nesting, no
anchors, no tags, no texts over several lines. What Marian does not write is not guessed.
"""

from __future__ import annotations

import json
import re
from typing import Any

from transformer_spec import UserError

KEY = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*):(?: +(.*))?")
ITEM = re.compile(r" *- +(.*)")
FLOW = re.compile(r"\[(.*)\]")
DOUBLE = re.compile(r'"(?:[^"\\]|\\.)*"')
SINGLE = re.compile(r"'(?:[^']|'')*'")
PLAIN = re.compile(r"[^\s\-?:,\[\]{}#&*!|>'\"%@`].*|[-?:][^\s,\[\]{}].*")
WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
INTEGER = re.compile(r"[-+]?\d+")
REAL = re.compile(r"[-+]?(\d+\.\d*|\.?\d+)([eE][-+]?\d+)?")


def read_flat_yaml(text: str, label: str) -> dict[str, Any]:
    """Keys to None, bool, int, float, str or a list of these; other syntax is a UserError."""
    result: dict[str, Any] = {}
    current = None
    for number, line in enumerate(text.splitlines(), 1):
        where = f"line {number} of {label}"
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line.startswith((" ", "-")):
            _add_to_list(result, current, line, where)
            continue
        current, value = _pair(line, where)
        if current in result:
            raise UserError(f"{where}: {current!r} comes twice")
        result[current] = _value(value, where)
    return result


def _pair(line: str, where: str) -> tuple[str, str]:
    found = KEY.fullmatch(line.rstrip())
    if found is None:
        raise _unknown(line, where)
    return found[1], found[2] or ""


def _add_to_list(result: dict[str, Any], key: str | None, line: str, where: str) -> None:
    """One more line of the list that the last key began."""
    if key is None or not (result[key] is None or isinstance(result[key], list)):
        raise _unknown(line, where)
    item, text = ITEM.fullmatch(line.rstrip()), line.strip()
    if item is not None:
        result[key] = [*(result[key] or []), _scalar(item[1].strip(), where)]
    elif result[key] is None and FLOW.fullmatch(text):
        result[key] = _value(text, where)
    else:
        raise _unknown(line, where)


def _value(text: str, where: str) -> Any:
    text = text.strip()
    flow = FLOW.fullmatch(text)
    if flow is None:
        return _scalar(text, where)
    if re.search(r"[\[\]{}'\"]", flow[1]):
        raise _unknown(text, where)
    return [_scalar(part.strip(), where) for part in flow[1].split(",")] if flow[1].strip() else []


def _scalar(text: str, where: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    if SINGLE.fullmatch(text):
        return text[1:-1].replace("''", "'")
    if DOUBLE.fullmatch(text):
        return _quoted(text, where)
    if INTEGER.fullmatch(text):
        return int(text)
    if REAL.fullmatch(text):
        return float(text)
    if not PLAIN.fullmatch(text) or ": " in text or text.endswith(":") or " #" in text:
        raise _unknown(text, where)
    return text


def _quoted(text: str, where: str) -> str:
    """A text in double quotes; its escapes are those that JSON has too."""
    try:
        return json.loads(text)
    except ValueError:
        raise _unknown(text, where) from None


def _unknown(text: str, where: str) -> UserError:
    return UserError(
        f"{where}: {text.strip()!r} is not understood; read are 'key: value' and lists of values"
    )
