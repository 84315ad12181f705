"""JSON that somebody else may have written."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from transformer_spec.errors import Faults, broken_link, system_fault

MOST = 2**63
JSON_TYPES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}


def parse_json(text: str) -> Any:
    """The value of a JSON text; a ValueError says what is wrong, nesting without end included."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep for a file of settings or names") from None


def read_json_file(path: Path) -> Any:
    """The value of a JSON file in UTF-8; an OSError or a ValueError says what is wrong."""
    return parse_json(path.read_text(encoding="utf-8"))


def json_fault(path: Path, error: OSError | ValueError) -> str:
    """Why ``read_json_file`` did not read a file, in one line."""
    if isinstance(error, FileNotFoundError):
        return broken_link(path) or f"{path} does not exist"
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder; give the file in it"
    return system_fault(error) if isinstance(error, OSError) else f"{path} is not JSON: {error}"


def read_fields(
    owner: type, content: Mapping[str, Any], faults: Faults, within: str = ""
) -> dict[str, Any]:
    """What a JSON object says of the plain fields of a dataclass, none of which is below 0.

    A field that is missing or of a wrong type is a fault that names it, after ``within``.
    """
    hints, values = typing.get_type_hints(owner), dict[str, Any]()
    for field in dataclasses.fields(owner):
        kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
        union = isinstance(hints[field.name], types.UnionType)
        if not set(kinds if union else (hints[field.name],)) <= JSON_TYPES.keys():
            continue  # a record of its own
        name = f"{within}{field.name}"
        if field.name not in content:
            faults.add(f"{name} is missing")
            continue
        fault = value_fault(name, content[field.name], kinds)
        faults.require(fault is None, str(fault))
        values[field.name] = content[field.name]
    return values


def value_fault(name: str, value: object, kinds: Collection[type]) -> str | None:
    """What is wrong with a JSON value that must be of some types, or None.

    A whole number is a number too, true and false are none; it is not below 0.
    """
    if type(value) not in kinds and not (type(value) is int and float in kinds):
        allowed = " or ".join(JSON_TYPES[kind] for kind in kinds)
        return f"{name} is {JSON_TYPES.get(type(value), type(value).__name__)}, not {allowed}"
    if type(value) is int and not 0 <= value < MOST:
        return f"{name} is too small or too large a number"
    return None
