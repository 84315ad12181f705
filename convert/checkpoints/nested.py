"""Checkpoints that hold more than weights: where weights, settings and optimizer are in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.checkpoints.torch_states import is_optimizer_state
from convert.core.tensors import Joined, Renamed, Tensors
from convert.formats.content import ContentFile, is_array
from convert.formats.torch_file.reader import open_torch_file
from transformer_spec import UserError

WEIGHTS = ("model", "state_dict", "model_state_dict", "params", "module")
OPTIMIZERS = (
    "optimizer",
    "optim",
    "optimizer_state_dict",
    "optimizer_state",
    "last_optimizer_state",
)
SETTINGS = ("args", "opt", "cfg.model", "config")
VOCABULARY = "vocab"
GENERATOR = "generator"  # the output projection, which OpenNMT-py keeps apart


@dataclass(frozen=True)
class OptimizerPart:
    """The ``state_dict()`` of a torch optimizer in a file, its arrays not read yet."""

    file: ContentFile
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Nested:
    """What a .pt file holds for us."""

    tensors: Tensors
    settings: Mapping[str, Any] | None
    optimizer: OptimizerPart | None


def open_nested(path: Path, key: str | None = None) -> Nested:
    """The weights of a .pt file and what lies beside them; ``key`` says which dict they are.

    Without ``key`` they are the whole file, or the one dict with a usual name.
    """
    file = open_torch_file(path)
    content = file.content
    if key is not None:
        return Nested(file.tensors(file.at(key)), settings_in(file), optimizer_in(file))
    if not isinstance(content, dict) or all(is_array(value) for value in content.values()):
        return Nested(file.tensors(), None, None)
    found = [name for name in WEIGHTS if _holds_arrays(content.get(name))]
    if len(found) != 1:
        named = " and ".join(found) or "none of the usual names"
        raise UserError(f"{path} holds more than tensors: {named}; {file.choices()}")
    return Nested(_with_generator(file, found[0]), settings_in(file), optimizer_in(file))


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, dict) and any(is_array(part) for part in value.values())


def _with_generator(file: ContentFile, key: str) -> Tensors:
    tensors = file.tensors(file.content[key])
    generator = file.content.get(GENERATOR)
    if not _holds_arrays(generator):
        return tensors
    part = file.tensors(generator)
    named = Renamed(part, {f"{GENERATOR}.{name}": name for name in part})
    return Joined(str(file.path), [tensors, named])


def settings_in(file: ContentFile) -> Mapping[str, Any] | None:
    """The first of the usual places for settings that holds a mapping."""
    for place in SETTINGS:
        value = file.content
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, dict) and value:
            return {**value, **_vocabulary(file.content)}
    return None


def _vocabulary(content: Mapping[str, Any]) -> dict[str, Any]:
    """OpenNMT-py keeps its vocabulary, and so its special ids, beside the options."""
    return {VOCABULARY: content[VOCABULARY]} if VOCABULARY in content else {}


def optimizer_in(file: ContentFile) -> OptimizerPart | None:
    """The optimizer's state under a usual name, or the file as a whole."""
    content = file.content
    for name in OPTIMIZERS if isinstance(content, dict) else ():
        if is_optimizer_state(content.get(name)):
            return OptimizerPart(file, content[name])
    return None


def open_optimizer(path: Path) -> OptimizerPart:
    """A file that is an optimizer's state as a whole, as trainers write ``optimizer.pt``."""
    file = open_torch_file(path)
    if not is_optimizer_state(file.content):
        raise UserError(f"{path} is no state_dict() of a torch optimizer; remove it or rename it")
    return OptimizerPart(file, file.content)
