"""Foreign checkpoints: rules of weights, moments and what is kept aside, and where they came from.

A folder that was imported says in ``origin.json`` under which names and with which settings its
weights came, so that the way back restores every tensor under its own name.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from convert.checkpoints.layouts import FIRST, SECOND, TORCH
from convert.checkpoints.optimizers.torch_states import Group, group_from
from convert.checkpoints.states.wrappers import Wrapping
from convert.core.operations import Constant, Duplicate, Given, Reversed
from convert.core.rules import ASIDE, Rule, rename, reverse
from convert.core.tensors import Announced, Header, Renamed, Tensors
from convert.families.base import Family, Source
from transformer_spec import Faults, TransformerConfig, UserError, trained_names
from transformer_spec.json_text import read_json_file

ORIGIN = "origin.json"
ORIGIN_VERSION = 1


def import_rules(family: Family, config: TransformerConfig, source: Source) -> list[Rule]:
    """Foreign names -> canonical ones: weights, then moments through the same table."""
    plain = TORCH.weight_names(source.tensors)
    rules = family.rules(config, replace(source, tensors=_chosen(source.tensors, plain)))
    for prefix in TORCH.moments:
        named = [n.removeprefix(prefix) for n in source.tensors if n.startswith(prefix)]
        if named:
            part = replace(source, tensors=_chosen(source.tensors, named, prefix))
            rules += _of_trained(family.rules(config, part), config, prefix)
    return rules


def _chosen(tensors: Tensors, names: Collection[str], prefix: str = "") -> Tensors:
    return Renamed(tensors, {name: prefix + name for name in names})


def _of_trained(rules: list[Rule], config: TransformerConfig, prefix: str) -> list[Rule]:
    """The rules of moments: what is tied has them once, under the name that comes first."""
    trained = set(trained_names(config))
    chosen = [rule for rule in rules if rule.targets and trained.issuperset(rule.targets)]
    _check_moments(chosen)
    return [_once(rule).prefixed(prefix, prefix) for rule in chosen]


def _check_moments(rules: list[Rule]) -> None:
    """What is one weight there and several here has no moments of each."""
    faults = Faults()
    for rule in rules:
        if not rule.operation.moments:
            told = f"{rule.sources[0]} is {rule.operation.label}, of which each is trained here"
            faults.add(told, "are one for all there, and each is trained here")
    advice = "--no-optimizer leaves the optimizer out: it starts fresh"
    faults.raise_if_any("the optimizer's moments are of other weights", advice=advice)


def _once(rule: Rule) -> Rule:
    tied = isinstance(rule.operation, Reversed) and isinstance(rule.operation.operation, Duplicate)
    return rename(rule.sources[0], rule.targets[0]) if tied else rule


@dataclass(frozen=True)
class Origin:
    """What an imported folder was: family, settings, and the tensors' names, shapes and types.

    ``groups`` are those of its torch optimizer, which loads its state only if they are the same;
    ``wrapped`` says which names had more in them (wrappers.py), ``tensors`` have them without;
    ``counters`` are what the wrapper kept beside the weights.
    """

    family: str
    settings: Mapping[str, Any] | None
    tensors: Mapping[str, Header]
    wrapper: Mapping[str, str]
    groups: list[Group] = field(default_factory=list)
    wrapped: Mapping[str, str] = field(default_factory=dict)
    counters: Sequence[str] = ()

    @property
    def source(self) -> Source:
        announced = Announced(self.family, dict(self.tensors))
        return Source(announced, self.settings, wrapper=self.wrapper)

    def save(self, path: Path) -> None:
        tensors = {n: [str(h.dtype), list(h.shape)] for n, h in self.tensors.items()}
        content = {
            "format_version": ORIGIN_VERSION,
            "family": self.family,
            "wrapper": dict(self.wrapper),
            "settings": _with_text_keys(self.settings),
            "tensors": tensors,
            "optimizer_groups": [[group.names, group.settings] for group in self.groups],
        }
        content |= {"wrapped": dict(self.wrapped)} if self.wrapped else {}
        content |= {"counters": list(self.counters)} if self.counters else {}
        path.write_text(json.dumps(content, indent=2, default=repr) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Origin:
        """Read origin.json; a damaged file is a UserError."""
        try:
            content = _known(read_json_file(path))
            tensors = {
                name: Header(tuple(shape), np.dtype(dtype))
                for name, (dtype, shape) in content["tensors"].items()
            }
            groups = [group_from(*group) for group in content["optimizer_groups"]]
            settings, wrapper = content["settings"], content["wrapper"]
            wrapped = dict(content.get("wrapped", {}))
            counters = list(content.get("counters", ()))
            return cls(content["family"], settings, tensors, wrapper, groups, wrapped, counters)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {error!r}; delete it to write without") from error


def _known(content: Any) -> Mapping[str, Any]:
    """The content of origin.json, of the version and the kinds that are read; else ValueError."""
    if not isinstance(content, dict) or content.get("format_version") != ORIGIN_VERSION:
        raise ValueError(f"it is no object of format_version {ORIGIN_VERSION}")
    kinds = {"family": str, "wrapper": dict, "settings": dict | None, "tensors": dict}
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"its {key} are not what was written")
    return content


def _with_text_keys(value: Any) -> Any:
    """Settings with keys that JSON has; another key becomes its text."""
    if isinstance(value, Mapping):
        items = ((k if isinstance(k, (str, int, float)) else str(k), x) for k, x in value.items())
        return {key: _with_text_keys(part) for key, part in items}
    return [_with_text_keys(part) for part in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class Export:
    """The rules from canonical names to a family's.

    ``gone`` names what was to be put back and was not kept: the names are then the usual ones.
    """

    rules: list[Rule]
    gone: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        if not self.gone:
            return []
        return [f"written under the usual names: nothing was kept aside of {', '.join(self.gone)}"]


def export_rules(
    family: Family,
    config: TransformerConfig,
    canonical: Tensors,
    origin: Origin | None,
    wrapper: Mapping[str, str] | None = None,
) -> Export:
    """Canonical -> foreign names: those of the origin if it is this family's, else the usual ones.

    A ``wrapper`` says which names the user wants, whatever the origin's were. Where a tensor that
    was kept aside is gone, the names are the usual ones too: what the family's own library writes
    of the config is whole without it.
    """
    like, gone, wrapping = family.written(config, wrapper), list[str](), Wrapping()
    restored = family.restores_names and not wrapper
    if restored and origin is not None and _fits(origin, family, canonical):
        aside = _aside(family.rules(config, origin.source))
        gone = [name.removeprefix(ASIDE) for name in aside if name not in canonical]
        if not gone:
            like, wrapping = origin.source, Wrapping(origin.wrapped)
    rules = reverse(family.rules(config, like))
    kept = origin.counters if origin is not None and wrapping.names else ()
    beside = [rename(ASIDE + name, name) for name in kept if ASIDE + name in canonical]
    rules = [_put_back(rule, config, canonical, like.tensors, family) for rule in rules]
    for prefix in (FIRST, SECOND):
        if any(name.startswith(prefix) for name in canonical):
            rules += reverse(_of_trained(family.rules(config, like), config, prefix))
    return Export([wrapping.put_back(rule) for rule in rules] + beside, gone)


def names_before(
    family: Family, config: TransformerConfig, origin: Origin
) -> list[tuple[str, str]]:
    """(theirs, ours) of every trained weight, theirs as it was in the file."""
    trained, wrapping = set(trained_names(config)), Wrapping(origin.wrapped)
    return [
        (wrapping.in_file(theirs), ours)
        for rule in family.rules(config, origin.source)
        if rule.targets and trained.issuperset(rule.targets)
        for theirs in rule.sources
        for ours in rule.targets
    ]


def _fits(origin: Origin, family: Family, canonical: Tensors) -> bool:
    """Whether the weights came from this family, and what was kept aside is from there too."""
    kept = {name.removeprefix(ASIDE) for name in canonical if name.startswith(ASIDE)}
    return origin.family == family.name and kept <= origin.tensors.keys() | set(origin.counters)


def _aside(rules: list[Rule]) -> list[str]:
    return [target for rule in rules for target in rule.targets if target.startswith(ASIDE)]


def _put_back(
    rule: Rule, config: TransformerConfig, canonical: Tensors, like: Tensors, family: Family
) -> Rule:
    """A rule from ``aside/``; where nothing was kept, what follows from the config.

    Zeros stand for what the family never reads.
    """
    if not (rule.sources and rule.sources[0].startswith(ASIDE)):
        return rule
    if rule.sources[0] in canonical:
        return replace(rule, reason=rule.reason.replace("kept aside", "put back", 1))
    name = rule.targets[0]
    array = family.derived(name, config)
    if array is not None:
        return Rule((), (name,), Given(array), "follows from the config")
    if name not in family.never_read:
        raise UserError(f"{name} was not kept aside, and {family.name} cannot be written without")
    shape, dtype = like[name].shape, canonical[next(iter(canonical))].dtype
    reason = rule.reason.replace("kept aside", "zeros", 1)
    return Rule((), (name,), Constant(shape, dtype), reason)
