"""A setting is declared once, as a dataclass field; this reads type, range and flag off the field.

It serves the training settings, the command's own options and the fields of TransformerConfig.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any

from transformer_spec.errors import closest

REQUIRED = dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One setting: its name, types, default (or REQUIRED), meaning, group and allowed values."""

    name: str
    types: tuple[type, ...]
    default: Any
    help: str
    group: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    above: float | None = None
    below: float | None = None
    resumable: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def type(self) -> type:
        """The type beside None."""
        return next(kind for kind in self.types if kind is not type(None))

    @property
    def optional(self) -> bool:
        return type(None) in self.types


def declared(help: str, group: str, default: Any, **allowed: Any) -> Any:
    """A dataclass field that carries its meaning and allowed values."""
    return dataclasses.field(default=default, metadata={"help": help, "group": group, **allowed})


def declarations(owner: type, group: str | None = None) -> dict[str, Declaration]:
    """The declarations of a dataclass by name; ``group`` stands in where a field names none."""
    hints = typing.get_type_hints(owner)
    known = {field.name for field in dataclasses.fields(Declaration)}
    found = {}
    for field in dataclasses.fields(owner):
        metadata: dict[str, Any] = {"group": group}
        metadata |= {key: value for key, value in field.metadata.items() if key in known}
        found[field.name] = Declaration(
            name=field.name,
            types=_types(hints[field.name], field),
            default=field.default,
            **metadata,
        )
    return found


def _types(annotation: Any, field: dataclasses.Field) -> tuple[type, ...]:
    """The types of a field; a default of None makes it optional, whatever the annotation says."""
    union = isinstance(annotation, types.UnionType)
    parts = typing.get_args(annotation) if union else (annotation,)
    found = tuple(typing.get_origin(part) or part for part in parts)
    none = type(None)
    return (*found, none) if field.default is None and none not in found else found


def read_text(declaration: Declaration, text: str) -> Any:
    """The value of a flag's text; ValueError says what is allowed."""
    if declaration.optional and text.lower() == "none":
        return None
    if declaration.type is tuple:
        return tuple(part.strip() for part in text.split(","))
    if declaration.type is bool:
        return _read_bool(text)
    if declaration.type is str:
        return text
    try:
        return declaration.type(text.replace("_", ""))
    except ValueError:
        raise ValueError(f"{text!r} is not {_noun(declaration)}") from None


def _read_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def as_text(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def read_value(declaration: Declaration, value: Any) -> Any:
    """A value of a recipe or of settings.json, whose types are already told apart."""
    if value is None or (value == "none" and declaration.optional):
        if declaration.optional:
            return None
    elif declaration.type is tuple and isinstance(value, str | list | tuple):
        parts = value.split(",") if isinstance(value, str) else value
        if all(isinstance(part, str) for part in parts):
            return tuple(part.strip() for part in parts)
    elif declaration.type is float and type(value) is int:
        return float(value)
    elif type(value) is declaration.type:
        return value
    raise ValueError(f"{value!r} is not {_noun(declaration)}")


def _noun(declaration: Declaration) -> str:
    nouns = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    noun = nouns.get(declaration.type, "a list of names separated by commas")
    return noun + (" or none" if declaration.optional else "")


def range_fault(declaration: Declaration, value: Any) -> str | None:
    """What is wrong with a value of the right type, or None."""
    if value is None:
        return None
    if declaration.choices and value not in declaration.choices:
        allowed = ", ".join(declaration.choices)
        return f"{value!r} is not one of {allowed}{closest(str(value), declaration.choices)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a finite number"
    if declaration.least is not None and value < declaration.least:
        return f"{value} is too small; it must be at least {declaration.least}"
    if declaration.above is not None and value <= declaration.above:
        return f"{value} is too small; it must be above {declaration.above}"
    if declaration.below is not None and value >= declaration.below:
        return f"{value} is too large; it must be below {declaration.below}"
    return None
