"""The groups of torch.optim.AdamW for parameters that are written, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from convert.checkpoints.layouts import FIRST
from convert.checkpoints.optimizers.torch_states import Group
from convert.core.rules import Rule
from convert.formats.content import some_of
from training_recipe.files.json_files import read_json
from transformer_spec import TransformerConfig, UserError, trained_names, weight_shapes

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
REGROUPED = (
    "optimizer.pt: settings are {}, in groups of {} parameters; it loads into an optimizer that is "
    "given the parameters in the same groups and order, which param_names in it tell"
)
UNKNOWN = (
    "optimizer.pt: with which settings its moments were trained is not known; groups and settings "
    "that stand there are {} ({}); load_state_dict puts them in the place of yours: set your lr "
    "and weight_decay after it"
)
IN_NO_GROUP = (
    "optimizer.pt: {} of {} parameters are in no one group of the source: they are a group of "
    "their own, the last, with the settings of the first"
)
NO_SETTINGS = (
    "optimizer.pt: {} of {} parameters are in no one group of the source: they have the settings "
    "of others in their group, or those of before where it has no others"
)
SEVERAL = (
    "optimizer.pt: one parameter each that was trained in parts with several settings, and has "
    "those of its first part: {}"
)
SOURCES, RUNS = "the source's", "the run's"


class OwnGroups(NamedTuple):
    """Groups of parameters, and what is to be said of them."""

    groups: list[Group]
    notes: list[str]


class Known(NamedTuple):
    """Groups under our names, none where nothing tells of any, and whose they are.

    Only where they are ``sure`` are they known to be those that the moments were trained in.
    """

    groups: list[Group]
    whose: str = SOURCES
    sure: bool = True


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


def own_groups(config: TransformerConfig, known: Known) -> OwnGroups:
    """The known groups, each in the order of our PyTorch twin's parameters.

    Where there is none: matrices, and vectors without decay, with defaults.
    """
    trained = trained_names(config)
    if not any(group.names for group in known.groups):
        groups = _divided(config, {})
        return OwnGroups(_all_whole(groups), _defaults([Group(trained, {})]))
    place = {name: number for number, name in enumerate(trained)}
    groups = [
        Group(sorted(place.keys() & set(group.names), key=place.__getitem__), group.settings)
        for group in known.groups
    ]
    groups, notes = [group for group in groups if group.names], list[str]()
    grouped = {name for group in groups for name in group.names}
    others = [name for name in trained if name not in grouped]
    if others:
        notes.append(IN_NO_GROUP.format(len(others), len(trained)))
        groups.append(Group(others, groups[0].settings))
    whole, sizes = _all_whole(groups), f"of {_sizes(groups)} parameters"
    told = [KNOWN.format(sizes)] if known.sure and known.whose == SOURCES else _told(known, whole)
    return OwnGroups(whole, [*told, *_defaults(groups), *notes])


def library_groups(
    before: Sequence[Group], pairs: Sequence[tuple[str, str]], known: Known
) -> OwnGroups:
    """Groups of another library's parameters, with the settings that are known under our names.

    They are those of ``before``, in that order, each divided where its parameters have several
    settings; ``pairs`` are (theirs, ours) of every parameter that is trained.
    """
    kinds = list[dict[str, Any]]()
    for group in known.groups:
        kinds += [] if group.settings in kinds else [group.settings]
    kind = {name: kinds.index(group.settings) for group in known.groups for name in group.names}
    found = dict[str, list[int | None]]()
    for theirs, ours in pairs:
        found.setdefault(theirs, []).append(kind.get(ours))
    of_theirs = {theirs: [k for k in some if k is not None] for theirs, some in found.items()}
    groups = [part for group in before for part in _parts(group, of_theirs, kinds)]
    if groups == list(before):
        told = [] if known.sure and known.whose == SOURCES else _told(known, groups)
        return OwnGroups(groups, told)
    whole = _all_whole(groups)
    told = _told(known, whole)
    if known.sure:
        told = [REGROUPED.format(known.whose, _sizes(groups)), *told]
    return OwnGroups(whole, [*told, *_defaults(groups), *_odd(groups, of_theirs)])


def _parts(
    group: Group, kinds_of: Mapping[str, Sequence[int]], kinds: Sequence[dict[str, Any]]
) -> list[Group]:
    """A group by the kinds of settings in it; what has none, or is never trained, is in the first.

    Where none of its parameters has any, it is as it was.
    """
    first = {name: kinds_of[name][0] for name in group.names if kinds_of.get(name)}
    there = sorted(set(first.values()))
    if not there:
        return [group]
    names = {kind: [n for n in group.names if first.get(n, there[0]) == kind] for kind in there}
    return [Group(names[kind], kinds[kind]) for kind in there]


def _odd(groups: Sequence[Group], kinds_of: Mapping[str, Sequence[int]]) -> list[str]:
    """Notes on parameters without settings, and on those with several."""
    names = [name for group in groups for name in group.names if name in kinds_of]
    bare = [name for name in names if not kinds_of[name]]
    several = [name for name in names if len(set(kinds_of[name])) > 1]
    notes = [NO_SETTINGS.format(len(bare), len(names))] if bare else []
    return notes + ([SEVERAL.format(some_of(several))] if several else [])


def _told(known: Known, groups: Sequence[Group]) -> list[str]:
    """Notes on a run's settings, and on those that may be of another training."""
    if known.sure:
        said = known.whose == RUNS and "lr" in known.groups[0].settings
        return [PEAK.format(known.groups[0].settings["lr"])] if said else []
    shown = [
        ", ".join(f"{key} {group.settings.get(key)}" for key in ("lr", "weight_decay"))
        for group in groups
    ]
    each = [f"{len(g.names)} parameters: {told}" for g, told in zip(groups, shown, strict=True)]
    return [UNKNOWN.format(known.whose, "; ".join(each))]


def _sizes(groups: Sequence[Group]) -> str:
    *others, last = [str(len(group.names)) for group in groups]
    return f"{', '.join(others)} and {last}" if others else last


def _all_whole(groups: Sequence[Group]) -> list[Group]:
    return [Group(group.names, _whole(group.settings)) for group in groups]


def _whole(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with the usual ones among them, betas as torch has them."""
    settings = ADAMW | settings
    betas = settings["betas"]
    return settings | {"betas": tuple(betas) if isinstance(betas, list) else betas}


def _divided(config: TransformerConfig, settings: dict[str, Any]) -> list[Group]:
    """Matrices, and vectors without decay, as our own training has them."""
    shapes, trained = weight_shapes(config), trained_names(config)
    matrices = [name for name in trained if len(shapes[name]) > 1]
    vectors = [name for name in trained if len(shapes[name]) == 1]
    return [Group(matrices, settings), Group(vectors, settings | {"weight_decay": 0.0})]


def same_settings(groups: Sequence[Group], known: Known) -> bool:
    """Whether groups have the settings of the known ones, as they would be written."""
    ours = {name: group.settings for group in groups for name in group.names}
    theirs = [(name, _whole(group.settings)) for group in known.groups for name in group.names]
    return all(ours.get(name) == settings for name, settings in theirs)


def run_groups(config: TransformerConfig, home: Path | None) -> list[Group]:
    """Those of our own training, as the settings of a run in ``home`` say; none without them."""
    if home is None or not (home / RUN_SETTINGS).is_file():
        return []
    return _divided(config, _of_run(home))


def _of_run(home: Path) -> dict[str, Any]:
    """What the settings of a run say; nothing where they are damaged, which others tell."""
    try:
        used = read_json(home / RUN_SETTINGS).get("settings")
    except UserError:
        return {}
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
