"""The files of a converted folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.checkpoints.checkpoint import FORMATS
from convert.checkpoints.folders.file_names import (
    KEPT_ASIDE,
    MODEL,
    MODEL_MSGPACK,
    MODEL_PICKLE,
    OPTIMIZER,
    OPTIMIZER_PICKLE,
    ORBAX_FOLDER,
)
from convert.checkpoints.layouts import COUNT, FIRST, ORBAX, SECOND
from convert.checkpoints.optimizers.torch_states import Group, state_dict
from convert.conversion.target import Target
from convert.core.rules import ASIDE
from convert.core.tensors import Held, Joined, Subset, Tensors
from convert.families.twinformer import is_flax
from convert.formats.content import Placed
from convert.formats.msgpack import SUFFIX, write_msgpack, write_sharded_msgpack
from convert.formats.orbax_writer import write_orbax
from convert.formats.safetensors import write_safetensors, write_sharded
from convert.formats.t5x_writer import write_t5x
from convert.formats.torch_file.writer import write_torch_pickle


def write_target(
    folder: Path,
    target: Target,
    tensors: Tensors,
    count: int | None,
    groups: list[Group],
    step: int,
    settings: Mapping[str, Any] | None,
) -> None:
    """Write every tensor of a target into an existing folder.

    ``count`` are the steps of an optimizer that is carried, ``step`` those of the weights,
    ``settings`` the target's own, which some keep in the file of the weights. Moments
    go into an ``optimizer.pt`` that torch loads where the groups of its parameters are known, else,
    or with raw weights, into safetensors by name.
    """
    if target.model is not None:
        target.model.write(folder, tensors)
        return
    aside = _starting(tensors, (ASIDE,))
    if aside:
        write_safetensors(folder / KEPT_ASIDE, Subset(tensors, aside))
    moments = _starting(tensors, target.layout.training)
    weights = Subset(tensors, _rest(tensors, [*aside, *moments]))
    if target.container == "orbax" and target.family is None:
        _write_orbax(folder, Subset(tensors, _rest(tensors, aside)), count)
        return
    if moments and count is not None:
        _write_moments(folder, target, Subset(tensors, moments), count, groups)
    if target.container == "t5x":
        write_t5x(folder, weights, step)
        return
    _write_weights(folder, target, weights, settings or {})


def _write_moments(
    folder: Path, target: Target, moments: Tensors, count: int, groups: list[Group]
) -> None:
    named = {FIRST + name for group in groups for name in group.names}
    raw, carried = _starting(moments, (target.layout.raw,)), set(_starting(moments, (FIRST,)))
    if raw or not groups or not named >= carried:
        write_safetensors(folder / OPTIMIZER, moments, {COUNT: str(count)})
        return
    frozen = {name.removeprefix(FIRST) for name in named - carried}
    content = state_dict(
        groups, lambda name: Placed(FIRST + name), lambda name: Placed(SECOND + name), count, frozen
    )
    write_torch_pickle(folder / OPTIMIZER_PICKLE, moments, content)


def _write_weights(
    folder: Path, target: Target, weights: Tensors, settings: Mapping[str, Any]
) -> None:
    metadata = FORMATS["flax" if is_flax(weights) else target.layout.twin]
    if target.container == "pt":
        name = target.family.pickle if target.family else MODEL_PICKLE
        tree = target.family.torch_content(settings, weights) if target.family else None
        write_torch_pickle(folder / name, weights, tree)
    elif target.container == "msgpack" and target.shard_size:
        stem = MODEL_MSGPACK.removesuffix(SUFFIX)
        write_sharded_msgpack(folder, weights, target.shard_size, stem)
    elif target.container == "msgpack":
        write_msgpack(folder / MODEL_MSGPACK, weights)
    elif target.container == "orbax":
        write_orbax(folder / ORBAX_FOLDER, weights)
    elif target.shard_size:
        write_sharded(folder, weights, metadata, target.shard_size)
    else:
        write_safetensors(folder / MODEL, weights, metadata)


def _write_orbax(folder: Path, tensors: Tensors, count: int | None) -> None:
    if count is not None:
        tensors = Joined(tensors.label, [tensors, Held({ORBAX.count: np.array(count, np.int32)})])
    write_orbax(folder / ORBAX_FOLDER, tensors)


def _starting(names: Collection[str], prefixes: tuple[str, ...]) -> list[str]:
    return [name for name in names if name.startswith(prefixes)]


def _rest(names: Collection[str], others: list[str]) -> list[str]:
    gone = set(others)
    return [name for name in names if name not in gone]
