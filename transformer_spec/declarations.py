"""A setting is declared once, as a dataclass field: type, default, meaning, allowed values.

The model's config, the training settings and the options of commands are declared so; values of
files, flags and callers are read and judged by what is said there.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from transformer_spec.errors import Faults, closest, text_fault

MOST_WHOLE = 2**31 - 1  # what both frameworks count with
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
    most: int = MOST_WHOLE
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


def setting(help: str, *default: Any, group: str = "model", **allowed: Any) -> Any:
    """A dataclass field with its meaning; without a default the field must be given.

    ``allowed`` are fields of Declaration. A default of None allows None: none, or in a model's
    config, of which no field is None once it is made, what is derived from other fields.
    """
    metadata = {"help": help, "group": group, **allowed}
    if default:
        return dataclasses.field(default=default[0], metadata=metadata)
    return dataclasses.field(metadata=metadata)


def in_group(group: str) -> Callable[..., Any]:
    """``setting`` for the settings of a group."""
    return functools.partial(setting, group=group)


def declarations(owner: type) -> dict[str, Declaration]:
    """The declarations of a dataclass by name."""
    hints = typing.get_type_hints(owner)
    return {
        field.name: Declaration(
            name=field.name,
            types=_types(hints[field.name], field),
            default=field.default,
            **field.metadata,
        )
        for field in dataclasses.fields(owner)
    }


def settle(owner: Any, declared: dict[str, Declaration], faults: Faults) -> bool:
    """Give the fields of a new frozen dataclass their types; whether all could be.

    A value of a wrong type, or one that is not allowed, is a fault.
    """
    typed = True
    for name, declaration in declared.items():
        try:
            value = read_value(declaration, getattr(owner, name))
            object.__setattr__(owner, name, value)
            fault = range_fault(declaration, value)
        except ValueError as error:
            fault, typed = str(error), False
        faults.require(fault is None, f"{name}: {fault}")
    return typed


def _types(annotation: Any, field: dataclasses.Field[Any]) -> tuple[type, ...]:
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
        return tuple(part.strip() for part in _checked(text).split(","))
    if declaration.type is bool:
        return _read_bool(text)
    if declaration.type is str:
        return _checked(text)
    try:
        return declaration.type(text.replace("_", ""))
    except ValueError:
        raise ValueError(f"{_shown(text)} is not {_noun(declaration)}") from None


def _checked(text: str) -> str:
    """The text; a ValueError where neither a file's name nor its content can be that."""
    fault = text_fault(text)
    if fault is not None:
        raise ValueError(f"{_shown(text)}: {fault}")
    return text


def _shown(value: object, limit: int = 60) -> str:
    """A value for a message, cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**limit:
        return "a number of more than 60 digits"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def _read_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def as_text(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, tuple):
        return ",".join(typing.cast(tuple[str, ...], value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def read_value(declaration: Declaration, value: Any) -> Any:
    """A value of a recipe or of settings.json, whose types are already told apart."""
    if value is None or (value == "none" and declaration.optional):
        if declaration.optional:
            return None
    elif declaration.type is tuple and isinstance(value, str | list | tuple):
        parts = value.split(",") if isinstance(value, str) else typing.cast(list[Any], value)
        if all(isinstance(part, str) for part in parts):
            return tuple(_checked(str(part)).strip() for part in parts)
    elif declaration.type is float and type(value) is int and abs(value) < 2**1000:
        return float(value)
    elif type(value) is declaration.type:
        return _checked(value) if isinstance(value, str) else value
    raise ValueError(f"{_shown(typing.cast(object, value))} is not {_noun(declaration)}")


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
    if type(value) is int and abs(value) > declaration.most:
        word = "large" if value > 0 else "small"
        return f"{_shown(value)} is too {word}; it must be at most {declaration.most:,}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a finite number"
    if declaration.least is not None and value < declaration.least:
        return f"{value} is too small; it must be at least {declaration.least}"
    if declaration.above is not None and value <= declaration.above:
        return f"{value} is too small; it must be above {declaration.above}"
    if declaration.below is not None and value >= declaration.below:
        return f"{value} is too large; it must be below {declaration.below}"
    return None
