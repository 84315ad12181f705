"""LoRA adapters of PEFT: small products that are added to the weights of a base model.

Hu et al. 2021, section 4.1: W + s B A with A (r, in) and B (out, r), where s is alpha / r, or
alpha / sqrt(r) in Kalajdzievski 2023. A folder of PEFT's holds adapter_config.json and the
adapter's tensors; a state that was saved while an adapter was attached holds both among its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.operations import Arrays, OneWay, Operation, RuleError, Shapes
from convert.core.tensors import Renamed, Tensors
from convert.formats.other_files import first_bytes
from convert.formats.safetensors import open_safetensors
from convert.formats.torch_file.reader import open_torch_pickle
from transformer_spec import Faults, UserError
from transformer_spec.json_text import json_fault, read_json_file

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
GIVE = "give the folder that PEFT's save_pretrained wrote"
NO_CONFIG, NO_FOLDER = f"{{}} has no {CONFIG}; {GIVE}", f"{{}} does not exist; {GIVE}"
PREFIX = "adapter/"  # before the names of a folder's tensors, beside those of the base
TOP = "base_model.model."
LORA = "LORA"
BY_PEFT = "PEFT merges it itself: merge_and_unload(), then save_pretrained()"
# Kinds that add vectors to what the model reads.
PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT")
BESIDE_WEIGHTS = "it stands beside the weights and changes none: nothing merges it into them"
PART = re.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)"
    r"(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?(?P<leaf>\.weight|\.bias)?"
)
# What makes of an adapter more than one product per weight.
VARIANTS = (
    "use_dora", "lora_bias", "fan_in_fan_out", "use_qalora", "alora_invocation_tokens",
    "arrow_config", "target_parameters", "layer_replication", "monteclora_config",
    "velora_config", "use_bdlora",
)  # fmt: skip
# First values of A and B that leave the base as it is; the others take something out of it.
PLAIN_STARTS = (None, True, False, "gaussian", "eva", "mica", "orthogonal")


@dataclass(frozen=True)
class Update:
    """What is added to the weight of a module: names of A and B, the factor, and of what kind."""

    first: str
    second: str
    scale: float
    of_table: bool  # of an embedding: A is (r, words) and B (width, r)


@dataclass(frozen=True)
class Adapter:
    """Tensors under names of their own, modules that they change, weights that they replace."""

    path: Path
    tensors: Tensors
    updates: Mapping[str, Update]
    replaced: Mapping[str, str] = field(default_factory=dict)


def adapter_names(names: Collection[str]) -> list[str]:
    """Those among the names of a state that are an adapter's."""
    return [name for name in names if PART.fullmatch(name)]


def what_it_is(path: Path, names: Collection[str] = ()) -> str:
    """The words for a folder or file that holds an adapter alone."""
    folder = path if path.is_dir() else path.parent
    try:
        settings = _settings(folder)
    except UserError:
        settings = {}
    kind = settings.get("peft_type", LORA)
    base = settings.get("base_model_name_or_path")
    to_what = f" of {base!r}" if base else ""
    to_do = f"convert the base model, with --merge-adapter {folder}"
    if kind != LORA:
        to_do = f"only {LORA} is merged here; {_by_others(kind)}"
    article = "an" if str(kind)[:1] in "AEIO" else "a"
    return f"{path} holds {article} {kind} adapter{to_what}, no model: {to_do}"


def _by_others(kind: Any) -> str:
    """What to do with an adapter of a kind that is not LoRA."""
    return BESIDE_WEIGHTS if kind in PROMPTS else BY_PEFT


def is_adapter_folder(path: Path) -> bool:
    return (path / CONFIG).is_file()


def several_in(folder: Path) -> str:
    """What to say of a folder in which PEFT has left adapters by name, in folders; or nothing."""
    names = [path.name for path in sorted(folder.glob("*/")) if is_adapter_folder(path)]
    return f"{folder} holds adapters in folders: {', '.join(names)}; name one of them" * bool(names)


def attached_names(names: Collection[str]) -> list[str]:
    """What PEFT calls the adapters whose tensors have these names in a state."""
    found = [PART.fullmatch(name) for name in names]
    return sorted({match["adapter"] for match in found if match and match["adapter"]})


def open_adapter(folder: Path, attached: Tensors | None = None) -> Adapter:
    """An adapter's tensors, headers only, and what each of them is for.

    ``attached`` are those that lie in the state of the base itself; a folder that has tensors too
    must have the same. What is no plain LoRA is a UserError with all that it has.
    """
    folder = folder.parent if folder.is_file() else folder
    settings = _settings(folder)
    _check(settings, folder)
    there = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if there:
        tensors = _opened(there[0])
        if attached is not None:
            _check_same(tensors, attached, folder)
            tensors = attached
    elif attached is not None:
        tensors = attached
    else:
        raise UserError(f"{folder} should hold one of {' or '.join(WEIGHTS)}; it has neither")
    updates = _updates(tensors, settings, folder)
    used = {name for update in updates.values() for name in (update.first, update.second)}
    plain = {_plain(name): name for name in tensors if name not in used}
    return Adapter(folder, tensors, updates, plain)


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        content = read_json_file(path)
    except (FileNotFoundError, NotADirectoryError):
        told = NO_CONFIG if folder.exists() else NO_FOLDER
        raise UserError(several_in(folder) or told.format(folder)) from None
    except (OSError, ValueError) as error:
        raise UserError(json_fault(path, error)) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object")
    return content


def _check(settings: Mapping[str, Any], folder: Path) -> None:
    kind = settings.get("peft_type")
    if kind != LORA:
        raise UserError(
            f"the adapter in {folder} cannot be merged: peft_type is {kind!r}; only {LORA!r} is "
            f"merged\n{_by_others(kind)}"
        )
    faults = Faults()
    for name in VARIANTS:
        if settings.get(name):
            faults.add(f"{name} is {settings[name]!r}; it is more than W + s B A")
    start = settings.get("init_lora_weights")
    if start not in PLAIN_STARTS:
        faults.add(f"init_lora_weights is {start!r}, which changes the weights of the base too")
    alpha, patterns = settings.get("lora_alpha"), settings.get("alpha_pattern") or {}
    values = [alpha, *patterns.values()] if isinstance(patterns, dict) else [None]
    numbers = all(isinstance(x, int | float) and math.isfinite(x) for x in values)
    faults.require(numbers, f"lora_alpha is {alpha!r} and alpha_pattern {patterns!r}; numbers are")
    for name in ("alpha_pattern", "rank_pattern"):
        for pattern in settings.get(name) or {}:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                faults.add(f"{name} has {pattern!r}, which is no regular expression: {error}")
    faults.raise_if_any(f"the adapter in {folder} cannot be merged", advice=BY_PEFT)


def _opened(path: Path) -> Tensors:
    first_bytes(path)
    pickled = path.suffix == ".bin"
    tensors = open_torch_pickle(path) if pickled else open_safetensors(path)
    return Renamed(tensors, {PREFIX + name: name for name in tensors})


def _check_same(one: Tensors, other: Tensors, folder: Path) -> None:
    """The adapter of a folder and the one attached to the base must have the same bytes."""
    mine = {_match_of(name): name for name in one if _match_of(name)}
    theirs = {_match_of(name): name for name in other}
    faults = Faults()
    for key in mine.keys() | theirs.keys():
        both = key in mine and key in theirs
        same = both and np.array_equal(one.read(mine[key]), other.read(theirs[key]))
        faults.require(same, f"{mine.get(key) or theirs[key]} is not the same in both")
    faults.raise_if_any(f"the adapter in {folder} is not the one in {other.label}")


def _match_of(name: str) -> tuple[str, str] | None:
    match = PART.fullmatch(_plain(name))
    return (match["module"], match["part"]) if match else None


def _plain(name: str) -> str:
    """A name as the base has it: a wrapped module's own weights lie in its ``base_layer``."""
    return name.removeprefix(PREFIX).removeprefix(TOP).replace(".base_layer.", ".")


def _updates(tensors: Tensors, settings: Mapping[str, Any], folder: Path) -> dict[str, Update]:
    """Module -> what is added to its weight; half a pair is a UserError."""
    parts: dict[str, dict[str, str]] = {}
    faults = Faults()
    for name in tensors:
        match = PART.fullmatch(_plain(name))
        if match is None:
            continue
        if match["part"] == "magnitude_vector" or match["leaf"] == ".bias":
            faults.add(f"{name}: it is more than W + s B A")
            continue
        found = parts.setdefault(match["module"], {})
        faults.require(match["part"] not in found, f"{name}: the second adapter of this module")
        found[match["part"]] = name
    updates = {}
    for module, names in parts.items():
        kind = next((k for k in ("", "embedding_") if names.keys() == {k + "A", k + "B"}), None)
        if kind is None:
            faults.add(f"{module} has {', '.join(f'lora_{part}' for part in names)} alone")
            continue
        first, second = names[kind + "A"], names[kind + "B"]
        rank = next(iter(tensors[first].shape), 0)
        said = _of_pattern(settings, "rank_pattern", module, settings.get("r"))
        if said not in (None, rank):
            faults.add(f"{first} is of rank {rank}; {CONFIG} says {said!r}", "are of another rank")
        scale = _scale(settings, module, rank or 1)
        updates[module] = Update(first, second, scale, bool(kind))
    faults.require(bool(parts), "it has no lora_A and lora_B")
    faults.raise_if_any(f"the adapter in {folder} cannot be merged")
    return updates


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha over the rank, or over its root."""
    alpha = _of_pattern(settings, "alpha_pattern", module, settings["lora_alpha"])
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _of_pattern(settings: Mapping[str, Any], name: str, module: str, usual: Any) -> Any:
    """What the first pattern says that a module's name ends with; a pattern is a regex."""
    patterns = settings.get(name) or {}
    found = (x for pattern, x in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", module))
    return next(found, usual)


class Merged(OneWay):
    """Another operation, with products added to some of its arrays first.

    Its own arrays come first, then A and B of each update (place of the array -> update) in order.
    Sums and products are computed in float64 and rounded once to the weight's own format.
    """

    def __init__(self, operation: Operation, updates: Mapping[int, Update]) -> None:
        self.operation = operation
        self.updates = updates
        self.compares = operation.compares
        then = "" if operation.label == "copied" else f", {operation.label}"
        self.label = f"merged with the adapter{then}"

    def forward(self, *arrays: np.ndarray) -> Arrays:
        count = len(arrays) - 2 * len(self.updates)
        own, others = list(arrays[:count]), iter(arrays[count:])
        for place, update in self.updates.items():
            first, second = next(others), next(others)
            own[place] = _added(own[place], first, second, update)
        return self.operation.forward(*own)

    def forward_shapes(self, *shapes: tuple[int, ...]) -> Shapes:
        count = len(shapes) - 2 * len(self.updates)
        others = iter(shapes[count:])
        for place, update in self.updates.items():
            _check_shapes(shapes[place], next(others), next(others), update)
        return self.operation.forward_shapes(*shapes[:count])

    def inverse_shapes(self, *shapes: tuple[int, ...]) -> Shapes:
        """Of the base's arrays; an adapter's may have any rank, and ``forward_shapes`` judges."""
        any_shapes: tuple[Any, ...] = (None,) * (2 * len(self.updates))
        return self.operation.inverse_shapes(*shapes) + any_shapes


def _added(weight: np.ndarray, first: np.ndarray, second: np.ndarray, update: Update) -> np.ndarray:
    _check_shapes(weight.shape, first.shape, second.shape, update)
    product = second.astype(np.float64) @ first.astype(np.float64)
    change = (product.T if update.of_table else product) * update.scale
    return (weight.astype(np.float64) + change).astype(weight.dtype)


def _check_shapes(
    weight: tuple[int, ...], first: tuple[int, ...], second: tuple[int, ...], update: Update
) -> None:
    """RuleError where B A is not of the weight's shape."""
    fits = len(first) == len(second) == 2 and first[0] == second[1]
    made = (first[1], second[0]) if fits and update.of_table else (second[:1] + first[1:])
    if not fits or made != weight:
        raise RuleError(
            f"{update.first} {list(first)} and {update.second} {list(second)} make no "
            f"{list(weight)}, which is what they are added to"
        )
