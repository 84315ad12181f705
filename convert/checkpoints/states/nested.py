"""Checkpoints that hold more than weights: where weights, settings and optimizer are in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convert.checkpoints.content import LEFT_OUT
from convert.checkpoints.folders.odd_places import GATHER
from convert.checkpoints.optimizers.torch_states import OptimizerPart, is_optimizer_state
from convert.checkpoints.states.copies import OTHERS, is_copy, one_copy
from convert.checkpoints.states.encodings import check_objects, is_plain
from convert.checkpoints.states.masters import masters
from convert.checkpoints.states.objects import settings_of
from convert.checkpoints.states.wrappers import COUNTERS, unwrap
from convert.core.tensors import Joined, Renamed, Tensors
from convert.formats.content import ContentFile, Leaf, Unread, children, is_array, some_of, unread
from convert.formats.torch_file.modules import is_module
from convert.formats.torch_file.reader import open_torch_file
from transformer_spec import UserError

WEIGHTS = ("model", "state_dict", "model_state_dict", "params", "module")
OPTIMIZERS = (
    "optimizer",
    "optim",
    "optimizer_state_dict",
    "optimizer_state",
    "last_optimizer_state",
    "optimizer_states",  # a list, of Lightning
)
SETTINGS = ("args", "opt", "cfg.model", "config", "dims")  # the last are OpenAI's
VOCABULARY = "vocab"
GENERATOR = "generator"  # the output projection, which OpenNMT-py keeps apart
AVERAGES = ("ema", "shadow", "average", "swa")


@dataclass(frozen=True)
class Nested:
    """What a .pt file holds for us; ``undone`` says why an optimizer in it is not read."""

    tensors: Tensors
    settings: Mapping[str, Any] | None
    optimizer: OptimizerPart | None
    undone: str = ""
    notes: list[str] = field(default_factory=list)


def open_nested(path: Path, key: str | None = None) -> Nested:
    """The weights of a .pt file and what lies beside them; ``key`` says where they are.

    Without ``key`` they are the whole file, or the one dict or module with a usual name.
    """
    file = open_torch_file(path)
    place, part = _usual(file) if key is None else _picked(file, key)
    _check_partition(file, part)
    tensors, notes = _weights(file, part)
    tensors, told = one_copy(tensors, place)
    notes += told + (_other_copies(file, tensors, place) if key is None else [])
    if key is None and place:
        tensors = _with_generator(file, tensors)
    settings, source = settings_in(file, part)
    optimizer, undone = optimizer_in(file)
    if key is not None and optimizer and not _is_usual(file, part, place):
        optimizer, undone = None, f"{LEFT_OUT}its moments are not those of {key}"
    notes += _objects(file, [part, source]) + masters(file, tensors)
    return Nested(tensors, settings, optimizer, undone, notes)


def _usual(file: ContentFile) -> tuple[str, Any]:
    """Where the weights are: the file as a whole, or the one part of it with a usual name."""
    content, inside = file.content, file.mapping(file.content)
    if is_optimizer_state(content):
        raise UserError(f"{file.path} is the state of an optimizer: weights are in another file")
    if inside is None or is_module(content) or all(is_array(x) for x in inside.values()):
        return "", content
    found = [name for name in WEIGHTS if _holds_arrays(file, inside.get(name))]
    if len(found) == 1:
        return found[0], inside[found[0]]
    if not found and _is_flat(inside):
        return "", content
    named = " and ".join(found) or "none of the usual names"
    check_objects(inside, str(file.path))
    raise UserError(f"{file.path} holds more than tensors: {named}; {file.choices()}")


def _is_usual(file: ContentFile, part: Any, place: str) -> bool:
    """Whether a part is of the weights that are read unless a key says otherwise.

    Where a key has to say it, whether its words are not those of averages.
    """
    try:
        where, usual = _usual(file)
        kept, _ = one_copy(_weights(file, usual)[0], where)
    except UserError:
        return not any(word in place.lower() for word in AVERAGES)
    trained = {id(value) for name, value in _leaves(file, usual).items() if name in kept}
    return all(id(value) in trained for value in _leaves(file, part).values())


def _leaves(file: ContentFile, part: Any) -> dict[str, Any]:
    inside = file.mapping(part) or {}
    return {str(name): value for name, value in inside.items() if is_array(value)}


def _holds_arrays(file: ContentFile, value: Any) -> bool:
    inside = file.mapping(value)
    return inside is not None and any(is_array(part) for part in inside.values())


def _is_flat(inside: Mapping[Any, Any]) -> bool:
    """Whether a dict is of tensors, with a few plain values among them."""
    others = [value for value in inside.values() if not is_array(value)]
    return len(others) < len(inside) / 2 and all(map(is_plain, others))


def _picked(file: ContentFile, key: str) -> tuple[str, Any]:
    """What the user names, also from where the weights would be looked for."""
    for name in WEIGHTS:
        inside = file.mapping(file.content) or {}
        if file.find(file.content, key) is None and (found := file.find(inside.get(name), key)):
            return f"{name}.{key}", found
    return key, file.at(key)


def _weights(file: ContentFile, part: Any) -> tuple[Tensors, list[str]]:
    """The tensors of a dict or of a module; a few plain values among them are left out."""
    inside = file.mapping(part)
    if inside is None:
        return file.tensors(part), []
    check_objects(inside, str(file.path))
    notes = list[str]()
    if is_module(part):
        notes.append(
            f"the weights are those of a pickled {part.name}: its parameters and buffers, as its "
            "state_dict() would name them unless its class says otherwise; nothing of it was run"
        )
    others = [str(name) for name, value in inside.items() if not is_array(value)]
    if others and _is_flat(inside):
        inside = {name: value for name, value in inside.items() if is_array(value)}
        notes.append(f"no tensors, and left out: {some_of(others)}")
    elif others and isinstance(part, Unread) and not any(map(is_array, inside.values())):
        raise UserError(f"{file.path} holds no tensors in that {part.name}; {file.choices()}")
    return file.tensors(dict(inside)), notes


def _check_partition(file: ContentFile, part: Any) -> None:
    """DeepSpeed's third stage leaves empty parameters here, and their numbers in other files."""
    weights = [x for x in (file.mapping(part) or {}).values() if isinstance(x, Leaf)]
    empty = bool(weights) and all(0 in leaf.shape for leaf in weights)
    if empty and "ds_version" in file.members(file.content):
        raise UserError(
            f"{file.path} is a part of DeepSpeed's ZeRO stage 3: its {len(weights)} parameters are "
            f"empty, and their numbers are in the files of all processes; {GATHER}"
        )


def _with_generator(file: ContentFile, tensors: Tensors) -> Tensors:
    generator = file.members(file.content).get(GENERATOR)
    if not isinstance(generator, dict) or not _holds_arrays(file, generator):
        return tensors
    part = file.tensors(generator)
    named = Renamed(part, {f"{GENERATOR}.{name}": name for name in part})
    return Joined(str(file.path), [tensors, named])


def _other_copies(file: ContentFile, tensors: Tensors, place: str) -> list[str]:
    """A note of each other dict with the weights' names, and of averages that have none."""
    if not place:
        return []
    weights = _plain_names(list(tensors))
    notes = [
        f"{key} is {OTHERS}: not read; --key {key} chooses it"
        for key, inside in file.dicts().items()
        if key not in ("", place) and is_copy(weights, _plain_names(list(map(str, inside))))
    ]
    lists = [key for key, count in _nameless_averages(file) if count >= len(tensors) / 2]
    return notes + [f"{key} is a list of tensors without names: not read" for key in lists]


def _plain_names(names: list[str]) -> list[str]:
    """Names without what wrappers added, and without their counters."""
    names = [name for name in names if name not in COUNTERS]
    wrapping = unwrap(names, None)
    return [wrapping.plain(name) for name in names]


def _nameless_averages(file: ContentFile) -> list[tuple[str, int]]:
    """Lists of tensors at the top, or one below, that are named as averages are."""
    parts = dict(file.members(file.content))
    parts |= {f"{k}.{name}": x for k, part in parts.items() for name, x in children(part)}
    return [
        (key, len(part))
        for key, part in parts.items()
        if isinstance(part, list) and part and all(map(is_array, part))
        and any(word in key.lower() for word in AVERAGES)
    ]  # fmt: skip


def _objects(file: ContentFile, used: list[Any]) -> list[str]:
    """A note that names the objects beside the weights; not those in ``used``, which were read."""
    made = [x for x in unread(file.content) if x.arguments is not None]
    names = Counter(x.name for x in made if not any(x is one for one in used))
    if not names:
        return []
    told = [f"{name} ({count})" if count > 1 else name for name, count in names.items()]
    return [f"objects that were not read, nor run: {some_of(told)}"]


def settings_in(file: ContentFile, weights: Any = None) -> tuple[Mapping[str, Any] | None, Any]:
    """The first of the usual places for settings that holds some, and the object that holds them.

    A module of transformers among the weights has its own.
    """
    for place in SETTINGS:
        value = source = file.content
        for key in place.split("."):
            inside = settings_of(value)
            source = value if isinstance(value, Unread) else source
            value = inside.get(key) if inside else None
        found = settings_of(value)
        if found:
            source = value if isinstance(value, Unread) else source
            return {**found, **_vocabulary(file.content)}, source
    config = weights.attributes.get("config") if is_module(weights) else None
    return settings_of(config), config


def _vocabulary(content: Any) -> dict[str, Any]:
    """OpenNMT-py keeps its vocabulary, and so its special ids, beside the options."""
    has = isinstance(content, dict) and VOCABULARY in content
    return {VOCABULARY: content[VOCABULARY]} if has else {}


def optimizer_in(file: ContentFile) -> tuple[OptimizerPart | None, str]:
    """The optimizer's state under a usual name; where there is one that is not read, why."""
    inside = file.members(file.content)
    for place in OPTIMIZERS:
        states = _states(place, inside.get(place))
        if len(states) == 1:
            return OptimizerPart(file, next(iter(states.values()))), ""
        if states:
            named = some_of(list(states))
            return None, f"{LEFT_OUT}{file.path} has those of several: {named}"
        if isinstance(inside.get(place), Unread):
            what = f"{place} is a pickled {inside[place].name}, not the state_dict() of one"
            return None, f"{LEFT_OUT}in {file.path} {what}"
    return None, ""


def _states(place: str, value: Any) -> dict[str, Any]:
    """Key -> state: a part that is one, or those directly in it."""
    if is_optimizer_state(value):
        return {place: value}
    return {f"{place}.{key}": x for key, x in children(value) if is_optimizer_state(x)}


def open_optimizer(path: Path) -> OptimizerPart:
    """A file that is an optimizer's state as a whole, as trainers write ``optimizer.pt``."""
    file = open_torch_file(path)
    if not is_optimizer_state(file.content):
        raise UserError(f"{path} is no state_dict() of a torch optimizer; remove it or rename it")
    return OptimizerPart(file, file.content)
