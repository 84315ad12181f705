"""A flat mapping of scalars and lists, in the YAML that Marian puts into its model files.

PyYAML reads it. What Marian does not write is refused and not guessed: no nesting, no anchors, no
tags, no key twice. Numbers and words are those of YAML 1.2's core schema, so that ``1e-6`` is a
number and neither ``no`` nor a date is anything but text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from transformer_spec import UserError

MAX_LENGTH = 1 << 20
SCALARS = (str, int, float, bool, type(None))
SCHEMA = {
    "null": r"(?:~|null|)$",
    "bool": r"(?:true|false)$",
    "int": r"[-+]?[0-9]+$",
    "float": r"[-+]?([0-9]+\.[0-9]*|\.?[0-9]+)([eE][-+]?[0-9]+)?$",
}


class _Loader(yaml.SafeLoader):
    """The safe loader without aliases, with the scalars above."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(None, None, "an anchor, alias or tag", event.start_mark)
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: Any) -> int:
        return int(node.value)

    def construct_yaml_float(self, node: Any) -> float:
        return float(node.value)


for _kind, _pattern in SCHEMA.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), None
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def read_flat_yaml(text: str, label: str) -> dict[str, Any]:
    """Keys to None, bool, int, float, str or a list of these; other syntax is a UserError."""
    if len(text) > MAX_LENGTH:
        raise UserError(f"{label} is no list of options: it has {len(text)} characters")
    try:
        node = yaml.compose(text, _Loader)
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"line 1 of {label} is not understood; read are 'key: value' lines")
        loader = _Loader("")
        pairs = [[loader.construct_object(part, deep=True) for part in pair] for pair in node.value]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1} of {label}" if mark else label
        raise UserError(f"{where} is not understood: {getattr(error, 'problem', error)}") from error
    except (RecursionError, ValueError) as error:
        raise UserError(f"{label} is not understood: {error}") from error
    return _checked(pairs, [key.start_mark.line + 1 for key, _ in node.value], label)


def _checked(pairs: list[list[Any]], lines: list[int], label: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for (key, value), line in zip(pairs, lines, strict=True):
        where = f"line {line} of {label}"
        parts = value if isinstance(value, list) else [value]
        if type(key) is not str or any(type(part) not in SCALARS for part in parts):
            raise UserError(f"{where} is not understood; read are 'key: value' and lists of values")
        if key in result:
            raise UserError(f"{where}: {key!r} comes twice")
        result[key] = value
    return result
