"""Gin files: what they bind to names, of values that are plain Python; nothing of them is run.

References to functions (``@name``) and to macros that are not bound in the file stay unknown, and
``include`` is not followed: T5X writes out what was included beside its checkpoints.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert.formats.arrays import file_size
from transformer_spec import UserError

GIN_SUFFIX = ".gin"
LARGEST = 10**7  # bytes
BINDING = re.compile(r"([A-Za-z_][\w./]*)\s*=(?!=)\s*(.*)", re.DOTALL)
BLOCK = re.compile(r"([A-Za-z_][\w./]*)\s*:\s*")
MACRO = re.compile(r"%([A-Za-z_][\w./]*)")
OPENING, CLOSING = "([{", ")]}"
QUOTED = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")


def read_gin(path: Path) -> dict[str, Any]:
    """Name -> value of every binding that is plain; a file that is no text is a UserError."""
    if file_size(path) > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST:,} bytes, which no gin file is")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable as a gin file: {error}") from error
    return _resolved(dict(_bindings(text)))


def _bindings(text: str) -> Iterator[tuple[str, str]]:
    """Name -> the text of its value; those of an indented block have its name before theirs."""
    block = ""
    for line in _logical_lines(text):
        if not line[:1].isspace():
            block = ""
        header, binding = BLOCK.fullmatch(line.strip()), BINDING.fullmatch(line.strip())
        if header:
            block = f"{header[1]}."
        elif binding:
            yield block + binding[1], binding[2].strip()


def _logical_lines(text: str) -> Iterator[str]:
    """Lines without comments, joined while a bracket is open or a backslash ends them."""
    kept, depth = "", 0
    for line in text.splitlines():
        line = _without_comment(line).rstrip()
        bare = QUOTED.sub("", line)
        depth += sum(map(bare.count, OPENING)) - sum(map(bare.count, CLOSING))
        goes_on = line.endswith("\\")
        kept += line.removesuffix("\\") + " " * goes_on
        if depth > 0 or goes_on:
            continue
        if kept.strip():
            yield kept
        kept, depth = "", 0
    if kept.strip():
        yield kept


def _without_comment(line: str) -> str:
    """A line up to the first # that is in no text."""
    hidden = QUOTED.sub(lambda found: "_" * len(found[0]), line)
    return line[: len(hidden.partition("#")[0])]


def _resolved(texts: dict[str, str]) -> dict[str, Any]:
    """The values of texts; a macro is that of its name, whether or not a scope stands before it."""
    values, waiting = dict[str, Any](), dict[str, str]()
    for name, text in texts.items():
        macro = MACRO.fullmatch(text)
        if macro:
            waiting[name] = macro[1]
        elif (value := _plain(text)) is not None:
            values[name] = value
    for name, macro in waiting.items():
        seen = {name}
        while macro in waiting and macro not in seen:
            seen.add(macro)
            macro = waiting[macro]
        for place in (macro, f"{macro}/macro.value"):
            if place in values:
                values[name] = values[place]
    return values


def _plain(text: str) -> Any:
    """A plain value; None for what is none, a reference or a mistake."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
