"""The groups of torch.optim.AdamW for our own parameters, and what is not known of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from convert.checkpoints.layouts import FIRST
from convert.checkpoints.optimizers.torch_states import Group
from convert.core.rules import Rule
from training_recipe.files.json_files import read_json
from transformer_spec import TransformerConfig, trained_names, weight_shapes

RUN_SETTINGS = "settings.json"
# What torch.optim.AdamW has where nothing else is asked for.
ADAMW: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}
OF_RUNS = {"lr": "peak_lr", "eps": "adam_eps", "weight_decay": "weight_decay"}
DEFAULTS = (
    "optimizer.pt: what is read of the source does not say {}: what stands there are defaults of "
    "torch.optim.AdamW ({}), which load_state_dict puts in the place of yours; set yours after it"
)
PEAK = "optimizer.pt: lr is the run's peak_lr ({}): the schedule is not in it"
KNOWN = (
    "optimizer.pt: groups and settings are the source's ({}); it loads into an optimizer that is "
    "given the parameters in the same groups and order, which param_names in it tell"
)
IN_NO_GROUP = (
    "optimizer.pt: {} of {} parameters are in no one group of the source: they are a group of "
    "their own, the last, with the settings of the first"
)


class OwnGroups(NamedTuple):
    """Groups of our parameters, and what is to be said of them."""

    groups: list[Group]
    notes: list[str]


def moment_pairs(rules: Iterable[Rule], first: str = FIRST) -> list[tuple[str, str]]:
    """(theirs, ours) of every weight that has moments, theirs after ``first``."""
    return [
        (theirs.removeprefix(first), ours.removeprefix(FIRST))
        for rule in rules
        for theirs in rule.sources
        for ours in rule.targets
        if theirs.startswith(first) and ours.startswith(FIRST)
    ]


def renamed(groups: Sequence[Group], pairs: Sequence[tuple[str, str]]) -> list[Group]:
    """The groups with our names in the place of theirs; what is in several of them is in none."""
    number = {name: n for n, group in enumerate(groups) for name in group.names}
    places: dict[str, set[int]] = {}
    for theirs, ours in pairs:
        if theirs in number:
            places.setdefault(ours, set()).add(number[theirs])
    return [
        Group([ours for ours, found in places.items() if found == {n}], group.settings)
        for n, group in enumerate(groups)
    ]


def own_groups(config: TransformerConfig, known: Sequence[Group], home: Path | None) -> OwnGroups:
    """Those of the source, each in the order of our PyTorch twin's parameters.

    Where no group is ``known``: matrices, and vectors without decay, with the settings of the run
    in ``home``, or with defaults.
    """
    trained = trained_names(config)
    if any(group.names for group in known):
        return _as_known(trained, known)
    settings = _of_run(home)
    groups = _divided(config, trained, ADAMW | settings)
    notes = [PEAK.format(settings["lr"])] if "lr" in settings else []
    return OwnGroups(groups, _defaults([Group(trained, settings)]) + notes)


def _as_known(trained: Sequence[str], known: Sequence[Group]) -> OwnGroups:
    place = {name: number for number, name in enumerate(trained)}
    groups = [
        Group(sorted(place.keys() & set(group.names), key=place.__getitem__), group.settings)
        for group in known
    ]
    groups, notes = [group for group in groups if group.names], list[str]()
    grouped = {name for group in groups for name in group.names}
    others = [name for name in trained if name not in grouped]
    if others:
        notes.append(IN_NO_GROUP.format(len(others), len(trained)))
        groups.append(Group(others, groups[0].settings))
    sizes = " and ".join(str(len(group.names)) for group in groups)
    notes = [KNOWN.format(f"of {sizes} parameters"), *_defaults(groups), *notes]
    return OwnGroups([Group(g.names, _whole(g.settings)) for g in groups], notes)


def _whole(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the usual ones among them, betas as torch has them."""
    settings = ADAMW | settings
    betas = settings["betas"]
    return settings | {"betas": tuple(betas) if isinstance(betas, list) else betas}


def _divided(
    config: TransformerConfig, trained: Sequence[str], settings: dict[str, Any]
) -> list[Group]:
    shapes = weight_shapes(config)
    matrices = [name for name in trained if len(shapes[name]) > 1]
    vectors = [name for name in trained if len(shapes[name]) == 1]
    return [Group(matrices, settings), Group(vectors, settings | {"weight_decay": 0.0})]


def _of_run(home: Path | None) -> dict[str, Any]:
    """What the settings of a run say; nothing where there is no run."""
    if home is None or not (home / RUN_SETTINGS).is_file():
        return {}
    used = read_json(home / RUN_SETTINGS).get("settings")
    used = used if isinstance(used, dict) else {}
    given = {name: used.get(theirs) for name, theirs in OF_RUNS.items()}
    betas = used.get("adam_beta1"), used.get("adam_beta2")
    given |= {"betas": None if None in betas else betas}
    return {name: value for name, value in given.items() if value is not None}


def _defaults(groups: Sequence[Group]) -> list[str]:
    """A note that names what some group does not say, and what stands there."""
    lacking = [key for key in ADAMW if any(key not in group.settings for group in groups)]
    values = ", ".join(f"{key} {ADAMW[key]}" for key in lacking)
    return [DEFAULTS.format(", ".join(lacking), values)] if lacking else []
