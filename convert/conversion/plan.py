"""The plan of a conversion: everything that is decided and checked before a tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from convert.checkpoints.folders.location import locate
from convert.checkpoints.layouts import TORCH
from convert.checkpoints.optimizers.torch_states import Group
from convert.conversion.origin import Export
from convert.conversion.places import check_places
from convert.conversion.request import ConversionRequest
from convert.conversion.side_files.beside import VOCABULARY, Beside, folder_of, library_of
from convert.conversion.side_files.imported import Pair, imported_vocabularies, search_beside
from convert.conversion.side_files.made_files import plan_files
from convert.conversion.side_files.speech_export import speech_settings, speech_tokenizer
from convert.conversion.sources.source import Import, read_import
from convert.conversion.target import (
    CTRANSLATE2,
    LAYOUTS,
    Target,
    foreign,
    target_rules,
)
from convert.conversion.trained_groups import groups_of
from convert.core.ledger import Ledger
from convert.core.pipeline import Converted
from convert.core.rules import ASIDE, Rule
from convert.core.tensors import Header, Tensors
from convert.exports.ctranslate2_model import CTranslate2Model, prepare
from convert.exports.ctranslate2_speech import SpeechModel, prepare_speech
from convert.families.registry import FAMILIES
from convert.families.t5x.family import T5X
from convert.families.t5x.settings import STEP
from convert.files.account import FilesPlan
from convert.files.steadiness import Sizes
from training_recipe.text.model_vocabularies import load_vocabularies
from transformer_spec import UserError


@dataclass(frozen=True)
class Plan:
    """A source, a target, and what becomes of every tensor on the way.

    ``settings`` is the target's own config file; None where it is ours, or the library's. ``files``
    are those beside the weights, ``sizes`` what the files of weights were when they were opened,
    ``groups`` how torch numbers the target's parameters, where that is known.
    """

    source: Import
    target: Target
    exports: list[Rule]
    ledger: Ledger
    settings: dict[str, Any] | None
    notes: list[str]
    files: FilesPlan
    sizes: Sizes
    groups: list[Group]

    @property
    def count(self) -> int | None:
        """Steps of the optimizer that is carried; None where there is none."""
        carried = self.source.has_moments and self.target.model is None
        return self.source.content.count if carried else None

    @property
    def step(self) -> int:
        """Steps that the weights were trained for, as far as that is known; else 0."""
        origin = self.source.origin
        before = (origin.settings or {}).get(STEP) if origin and origin.family == T5X.name else None
        return self.source.content.count or before or 0


def make_plan(request: ConversionRequest) -> Plan:
    """Check source, config, destination and every tensor's name, shape and type; read no tensor."""
    target = _choose_target(request)
    check_places(request.source, request.destination, request.key)
    wanted = request.optimizer and request.to != CTRANSLATE2
    located = locate(request.source)
    beside = Beside.of(located)  # before anything there is read
    source = read_import(replace(request, optimizer=wanted), located)
    sizes = Sizes.of(source.content.files)
    wrapper, model = _target_map(request, source, target), _model(request, source)
    target = replace(target, wrapper=wrapper, model=model)
    source, adapted = _adapted(source, target)
    canonical = Converted(source.content.tensors, source.rules)
    settings = _settings(target, source)
    export = target_rules(target, source.config, canonical, source.origin)
    settings = _with_usual(settings, export, target, source)
    settings = _with_format(settings, Converted(canonical, export.rules), target, source)
    dropped = source.dropped | _without_place(source.rules, export.rules, target)
    casts = casts_of(Converted(canonical, export.rules), target)
    ledger = Ledger(source.rules, export.rules, dropped, casts)
    files = plan_files(source, target, settings, beside)
    groups, told = groups_of(source, target, export.rules)
    notes = [*source.notes, *adapted, *export.notes, *(model.notes if model else []), *files.notes]
    notes += told
    return Plan(source, target, export.rules, ledger, settings, notes, files, sizes, groups)


def _adapted(source: Import, target: Target) -> tuple[Import, list[str]]:
    """The source with its config as the target's family can hold it, and what is said of that."""
    if target.family is None:
        return source, []
    config, notes = target.family.adapted(source.config)
    return replace(source, config=config), notes


def casts_of(written: Tensors, target: Target) -> dict[str, str]:
    """Weight -> what its number format becomes, where it becomes another."""
    if target.dtype is None or target.model is not None:
        return {}
    layout, wanted = target.layout, np.dtype(target.dtype)
    found = {}
    for name in (layout.weights + name for name in layout.weight_names(written)):
        given = written[name].dtype
        if given != wanted:
            verb = "widened" if given.itemsize < wanted.itemsize else "rounded"
            found[name] = f"{verb} to {wanted}"
    return found


def _choose_target(request: ConversionRequest) -> Target:
    """What is asked for: a family's own container unless another is named."""
    name, container, cut = request.to, request.container, request.shard_size
    family = foreign(name)
    possible = list(family.containers) if family else list(LAYOUTS[name])
    if container is not None and container not in possible:
        raise UserError(f"--to {name} is written as {' or '.join(possible)}, not {container}")
    container = container or possible[0]
    if cut and container not in ("safetensors", "msgpack"):
        raise UserError(f"--shard-size cuts safetensors and msgpack, and {container} is written")
    return Target(name, container, _number_format(request), int(cut) if cut else None)


def _number_format(request: ConversionRequest) -> str | None:
    """What weights are rounded to; CTranslate2 is given float32 and does the rest by itself."""
    if request.to != CTRANSLATE2:
        if request.quantization:
            raise UserError(f"--quantization {request.quantization} needs --to {CTRANSLATE2}")
        return request.dtype
    if request.dtype:
        raise UserError(f"--dtype {request.dtype} is for other targets; give --quantization")
    return "float32"


def _target_map(request: ConversionRequest, source: Import, target: Target) -> dict[str, str]:
    """The map is about the source where that is a module of the user's, else about the target."""
    if not request.map or (source.family and source.family.wrapped):
        return {}
    if target.family is None or not target.family.wrapped:
        wrapped = ", ".join(name for name, family in FAMILIES.items() if family.wrapped)
        raise UserError(
            f"--map says where the modules of a {wrapped} model are in one of yours; the source "
            f"({source.names}) and the target ({target.name}) have names of their own: leave it out"
        )
    return dict(request.map)


def _model(request: ConversionRequest, source: Import) -> CTranslate2Model | SpeechModel | None:
    """What CTranslate2 has to be told, where the target is that."""
    if request.to != CTRANSLATE2:
        return None
    quantization = request.quantization or "float32"
    if source.config.feature_dim:
        tokenizer = partial(speech_tokenizer, source)
        return prepare_speech(source.config, tokenizer, speech_settings(source), quantization)
    search, _ = search_beside(source)
    return prepare(source.config, lambda: _text(source), search, quantization)


def _text(source: Import) -> tuple[Pair | None, str]:
    """The vocabularies beside weights, or why there are none; damaged ones of ours are an error."""
    home = source.located.home
    if home is None:
        return imported_vocabularies(source, folder_of(source.located))
    folder = home / VOCABULARY
    return (load_vocabularies(folder, source.config) if folder.is_dir() else None), ""


def _settings(target: Target, source: Import) -> dict[str, Any] | None:
    """The target's own config file; what it cannot express is a UserError."""
    if target.family is None:
        return None
    origin = source.origin
    same = origin is not None and library_of(source) == target.family.library
    original = origin.settings if origin is not None and same else None
    return target.family.write_settings(source.config, original)


def _with_usual(
    settings: dict[str, Any] | None, export: Export, target: Target, source: Import
) -> dict[str, Any] | None:
    """Settings that say what is usual, where tensors have the usual names in place of their own."""
    if not settings or not export.gone or target.family is None:
        return settings
    return settings | target.family.write_settings(source.config, None)


def _with_format(
    settings: dict[str, Any] | None, written: Tensors, target: Target, source: Import
) -> dict[str, Any] | None:
    """Settings that say which number format is written, where it is not the one that came in."""
    if settings is None or target.family is None:
        return settings
    origin = source.origin
    now = target.dtype or _usual_format(written)
    same = origin is not None and library_of(source) == target.family.library
    came = origin and same and _usual_format(origin.tensors)
    if target.dtype or (came and now != came):
        return settings | target.family.number_format(settings, now)
    return settings


def _usual_format(tensors: Mapping[str, Header]) -> str:
    """The number format of most bytes of the weights."""
    sizes: dict[str, int] = {}
    for name in TORCH.weight_names(tensors):
        dtype = str(tensors[name].dtype)
        sizes[dtype] = sizes.get(dtype, 0) + tensors[name].size
    return max(sizes, key=lambda dtype: sizes[dtype], default="float32")


def _without_place(imports: list[Rule], exports: list[Rule], target: Target) -> dict[str, str]:
    """Source names that the target has no tensor for: another family's, or training's alone."""
    used = {name for rule in exports for name in rule.sources}
    left = [rule for rule in imports if rule.targets and used.isdisjoint(rule.targets)]
    dropped = {}
    for rule in left:
        aside = rule.targets[0].startswith(ASIDE)
        what = "kept aside" if aside else "for training alone"
        reason = f"{what}, and {target.name} has no such tensor"
        dropped |= dict.fromkeys(rule.sources, reason)
    return dropped
