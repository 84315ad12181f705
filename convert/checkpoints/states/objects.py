"""Settings that were pickled as objects: OmegaConf's, a Namespace of one's own, transformers'.

OmegaConf (2.0 and later) keeps a container's nodes in ``_content`` and a node's value in ``_val``;
``${model.dim}`` stands for the value of another node, from the top. A config of transformers has
its settings among its attributes, and its ``model_type`` in its class alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from convert.formats.content import MAX_DEPTH, OPTIMIZER, Unread
from convert.formats.torch_file.modules import is_module
from transformer_spec import UserError

OMEGACONF = "omegaconf."
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
HOPS = 8
TRANSFORMERS = re.compile(r"transformers\.(?:models\.\w+\.)?configuration_(\w+)\.\w+Config")
MOST = 100_000  # nodes; more of them only where containers hold each other many times


def settings_of(value: Any) -> Mapping[str, Any] | None:
    """The settings in a dict or an object; None where it holds none."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Unread):
        return None
    if value.name.startswith(OMEGACONF):
        found = _Nodes().plain(value, 0)
        return _resolved(found, found) if isinstance(found, dict) else None
    named = {key: x for key, x in value.attributes.items() if type(key) is str}
    if is_module(value) or named.keys() >= OPTIMIZER:
        return None
    config = TRANSFORMERS.fullmatch(value.name)
    if value.name.startswith("transformers.") and not config:
        return None  # such as the arguments of a Trainer
    if config:
        named = {key: x for key, x in named.items() if not key.startswith("_")}
        named = {"model_type": config[1], **named}
    return named or None


class _Nodes:
    """OmegaConf's nodes as plain values; counts them, since a file can repeat and nest them."""

    def __init__(self) -> None:
        self.count = 0

    def plain(self, value: Any, depth: int) -> Any:
        self.count += 1
        if self.count > MOST or depth > MAX_DEPTH:
            raise UserError("settings of OmegaConf contain themselves or are repeated without end")
        if isinstance(value, Unread) and value.name.startswith(OMEGACONF):
            inside = value.attributes
            content = inside.get("_content", inside.get("_val"))
            return _member(content) if isinstance(content, Unread) else self.plain(content, depth)
        if type(value) is dict:
            return {str(key): self.plain(part, depth + 1) for key, part in value.items()}
        if isinstance(value, list):
            return [self.plain(part, depth + 1) for part in value]
        return value


def _member(value: Unread) -> Any:
    """The value of a member of an Enum, as every version of Python pickles it; else the object."""
    arguments = value.arguments or ()
    if value.name.endswith(".getattr") and len(arguments) == 2:
        return arguments[1]
    return arguments[0] if len(arguments) == 1 and type(arguments[0]) in (str, int) else value


def _resolved(value: Any, top: Mapping[str, Any]) -> Any:
    """With the values that ``${...}`` stands for; text that names none stays."""
    if isinstance(value, dict):
        return {key: _resolved(part, top) for key, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part, top) for part in value]
    for _ in range(HOPS):
        match = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        found = _at(top, match[1].split(".")) if match else None
        if found is None:
            break
        value = found
    return value


def _at(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return None if isinstance(value, (dict, list)) else value
