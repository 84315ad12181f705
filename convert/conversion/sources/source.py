"""The source of a conversion: what it holds, whose it is, its config, its way to our names."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convert.checkpoints.checkpoint import check_tensors
from convert.checkpoints.content import Content
from convert.checkpoints.folders.file_names import OPTIMIZER, OPTIMIZER_PICKLE
from convert.checkpoints.folders.location import FILE, Located, locate
from convert.checkpoints.layouts import BESIDE, TORCH, canonical_rules, has_own_parts
from convert.checkpoints.optimizers.groups import moment_pairs, renamed
from convert.checkpoints.optimizers.named_moments import name_optimizer
from convert.checkpoints.optimizers.torch_states import Group
from convert.checkpoints.reading import open_content
from convert.checkpoints.records import LEDGER, Record
from convert.checkpoints.states.encodings import check_names
from convert.checkpoints.states.wrappers import Wrapping, counters, unwrap
from convert.conversion.origin import ORIGIN, Origin, import_rules
from convert.conversion.request import SourceRequest
from convert.conversion.sources.changed_files import changed_files
from convert.conversion.sources.kept_groups import Kept, kept_groups
from convert.conversion.sources.merging import merged, without_adapter
from convert.conversion.sources.same_weights import check_same
from convert.conversion.sources.sharing import sharing_notes
from convert.core.pipeline import Converted
from convert.core.rules import Rule
from convert.core.tensors import Joined, Renamed, Subset, Tensors
from convert.families.base import Family, Source, kept_aside
from convert.families.registry import FAMILIES, OURS, family_of_table, recognize
from convert.families.t5x.family import T5X
from convert.families.t5x.settings import GIN
from transformer_spec import Faults, TransformerConfig, UserError

DROPPED = "left out by --drop"
NO_OPTIMIZER = "an optimizer's, which was not asked for"


@dataclass(frozen=True)
class Moments:
    """An optimizer's state beside weights: its steps where they are known, and its bytes."""

    steps: int | None
    bytes: int

    @classmethod
    def of(cls, content: Content) -> Moments | None:
        """That of some content; None where there is none."""
        names = [name for name in content.tensors if name.startswith(content.layout.training)]
        return cls(content.count, Subset(content.tensors, names).size) if names else None


@dataclass(frozen=True)
class Import:
    """A source with everything decided that does not depend on the target.

    ``family`` is None for checkpoints of ours; ``origin`` says where weights came from before
    they became ours, or where they come from now. ``groups`` are those of an optimizer in it, under
    canonical names, ``kept`` those that an earlier conversion was given.
    """

    path: Path
    located: Located
    content: Content
    family: Family | None
    config: TransformerConfig
    rules: list[Rule]
    origin: Origin | None
    dropped: dict[str, str]
    notes: list[str] = field(default_factory=list)
    everything: Tensors | None = None
    groups: list[Group] = field(default_factory=list)
    kept: Kept = field(default_factory=Kept)

    @property
    def tensors(self) -> Tensors:
        """All that lies in the source, dropped tensors included."""
        return self.everything or self.content.tensors

    @property
    def names(self) -> str:
        """Whose names the source has."""
        return self.family.name if self.family else self.content.layout.twin

    @property
    def has_moments(self) -> bool:
        """Whether there is anything of an optimizer: moments, or weights that it goes on from."""
        names = self.content.tensors
        return self.content.layout.has_moments(names) or self.content.layout.has_raw(names)


def read_import(request: SourceRequest, located: Located | None = None) -> Import:
    """Open, recognize and check a source from its headers; every fault is a UserError.

    ``located`` is where it is, if that is known already.
    """
    located = located or locate(request.source)
    opened = open_content(located.weights, request.key, request.verify)
    check_names(opened.tensors, opened.tensors.label)
    check_has_weights(opened, located)
    wanted = request.optimizer and request.adapter is None
    lost = lost_optimizer(opened, located.weights, opened.record) if wanted else None
    if lost is not None:
        raise UserError(f"{lost}; --no-optimizer goes on without it")
    changed = changed_files(located.home) if located.home and request.verify else []
    opened = replace(opened, notes=(*located.notes, *changed, *opened.notes))
    merges = request.adapter is not None
    content, dropped = leave_out(opened, request.drop, request.optimizer and not merges)
    content, attached = without_adapter(content, located.weights, merges)
    wrapping = wrapping_of(content, request)
    family = choose_family(request, source_of(content, request, wrapping))
    _check_passed_over(request.ignore_settings, family)
    if family is None:
        result = _read_ours(request, located, content, wrapping, dropped)
    else:
        result = _read_foreign(request, located, content, wrapping, family, dropped)
        if family.restores_names and wrapping.names:
            result = _with_counters(result, opened)
    label = str(located.weights)
    if request.adapter is not None:
        result = _merge(request.adapter, attached, result, wrapping)
    check_tensors(result.content.tensors, result.rules, result.config, None, label)
    if request.compare_files:
        result.notes.extend(_compare(request, result, other) for other in opened.others)
    if not result.dropped:
        return result
    gone = Subset(opened.tensors, list(result.dropped))
    return replace(result, everything=Joined(label, [result.content.tensors, gone]))


def check_has_weights(content: Content, located: Located) -> None:
    """UserError where there is no weight: nothing, an optimizer's state or what was kept aside."""
    layout, names = content.layout, list(content.tensors)
    if not names:
        raise UserError(f"{content.tensors.label} holds no tensor; give a file of weights")
    if located.kind != FILE or layout.weight_names(names):
        return
    training = any(name.startswith(layout.training) for name in names)
    what = "an optimizer's state" if training else "what a model has no place for"
    folder = located.weights.parent
    raise UserError(f"{located.weights} holds {what} and no weights; give its folder, {folder}")


def lost_optimizer(content: Content, place: Path, record: Record | None) -> str | None:
    """What is to be said of a folder whose record tells of an optimizer that is not there."""
    training = content.layout.training
    there = content.optimizer is not None or any(n.startswith(training) for n in content.tensors)
    if record is None or there or content.unread or not place.is_dir() or not record.has(training):
        return None
    names = {"safetensors": OPTIMIZER, "pt": OPTIMIZER_PICKLE}
    file = f"{names[content.container]} is missing" if content.container in names else "it is gone"
    steps = f" after {record.count} steps" if record.count is not None else ""
    return f"{place} was written with an optimizer's state{steps} ({record.path.name}), and {file}"


def _with_counters(found: Import, opened: Content) -> Import:
    """The same source with what a wrapper counts kept beside the weights, for the way back."""
    there = counters(opened.tensors)
    reasons = {name: why for name, why in there.items() if found.dropped.get(name) == why}
    if not reasons or found.origin is None:
        return found
    content = found.content
    tensors = Joined(
        content.tensors.label, [content.tensors, Subset(opened.tensors, list(reasons))]
    )
    return replace(
        found,
        content=replace(content, tensors=tensors),
        rules=found.rules + [kept_aside(name, why) for name, why in reasons.items()],
        dropped={name: why for name, why in found.dropped.items() if name not in reasons},
        origin=replace(found.origin, counters=list(reasons)),
    )


def _compare(request: SourceRequest, found: Import, other: Path) -> str:
    """Weights of another file that should be the same; what differs is a UserError."""
    plain = replace(request, source=other, compare_files=False, optimizer=False, drop=())
    second = read_import(plain)
    first = found.content.files[0] if found.content.files else found.located.weights
    names = _names_in_file(second) | _names_in_file(found)
    check_same((first, weights_of(found)), (other, weights_of(second)), names)
    return f"{other.name} holds the same weights, byte by byte"


def _names_in_file(found: Import) -> dict[str, str]:
    """What each weight is called where it was read."""
    return {ours: " and ".join(rule.sources) for rule in found.rules for ours in rule.targets}


def weights_of(found: Import) -> Tensors:
    """The weights of the model alone, under canonical names."""
    rules = [rule for rule in found.rules if not any(t.startswith(BESIDE) for t in rule.targets)]
    return Converted(found.content.tensors, rules)


def _merge(folder: Path, attached: Tensors | None, found: Import, wrapping: Wrapping) -> Import:
    """The same source with an adapter merged into its weights; an optimizer's state is left out."""
    content = found.content
    merge = merged(
        folder, attached, content.tensors, found.rules, found.config, wrapping, content.layout
    )
    kept = [name for name in merge.tensors if name not in merge.dropped]
    return replace(
        found,
        content=replace(content, tensors=Subset(merge.tensors, kept)),
        rules=merge.rules,
        dropped=found.dropped | merge.dropped,
        notes=[*found.notes, merge.note],
    )


def wrapping_of(content: Content, request: SourceRequest) -> Wrapping:
    """What wrappers added to the weights' names."""
    names = content.layout.weight_names(content.tensors)
    return unwrap(names, settings_of(content, request), request.map.values())


def settings_of(content: Content, request: SourceRequest) -> Mapping[str, Any] | None:
    """The settings of another library, as given or as found."""
    given = request.given_settings()
    if given and GIN in given:  # of the checkpoint T5X keeps more, such as its step
        return {**(content.settings or {}), **given}
    return given or content.settings


def source_of(content: Content, request: SourceRequest, wrapping: Wrapping) -> Source:
    """The weights alone, as a family sees them."""
    layout = content.layout
    plain = [wrapping.plain(name) for name in layout.weight_names(content.tensors)]
    stored = {name: layout.weights + wrapping.in_file(name) for name in plain}
    weights = Renamed(content.tensors, stored)
    settings, ignored = settings_of(content, request), request.ignore_settings
    other = None if settings else request.other_settings() or content.other
    return Source(weights, settings, request.given_fields(), request.map, ignored, other)


def choose_family(request: SourceRequest, source: Source) -> Family | None:
    """The family that is asked for, or the one that names and settings show; None is ours.

    One that is asked for and that the settings contradict is a UserError.
    """
    if request.names is not None:
        return family_of_table(request.names)
    wanted = request.family
    if wanted == OURS:
        return None
    if wanted is not None:
        contradiction = _other_names(wanted, source) or FAMILIES[wanted].contradiction(source)
        if contradiction:
            raise UserError(f"{source.tensors.label} is not of {wanted}: {contradiction}")
        return FAMILIES[wanted]
    return None if has_own_parts(source.tensors) else recognize(source)


def _other_names(wanted: str, source: Source) -> str | None:
    """Names that are T5X's alone, where another family is asked for."""
    if wanted == T5X.name or not FAMILIES[T5X.name].recognizes(source):
        return None
    return f"its names are those of {T5X.name}; leave --from out, or say {T5X.name}"


def leave_out(
    content: Content, names: Sequence[str], optimizer: bool = True
) -> tuple[Content, dict[str, str]]:
    """Content without what has no place in a model and what the user drops, the optimizer or names.

    Unknown names are a UserError.
    """
    faults = Faults()
    named = list[str]()
    for name in names:
        found = [name] if name in content.tensors else fnmatch.filter(content.tensors, name)
        faults.require(bool(found), f"{name!r} is not in {content.tensors.label}")
        named += found
    faults.raise_if_any("--drop")
    gone = {**content.dropped, **counters(content.tensors), **dict.fromkeys(named, DROPPED)}
    if not optimizer:
        training = [n for n in content.tensors if n.startswith(content.layout.training)]
        gone |= dict.fromkeys(training, NO_OPTIMIZER)
        content = replace(content, optimizer=None, count=None, unread="")
        content = replace(content, told=(), hyperparameters={})
    if not gone:
        return content, {}
    kept = Subset(content.tensors, [name for name in content.tensors if name not in gone])
    return replace(content, tensors=kept), gone


def _read_ours(
    request: SourceRequest,
    located: Located,
    content: Content,
    wrapping: Wrapping,
    dropped: dict[str, str],
) -> Import:
    # Of a file, what lies beside it is looked at where nothing is said.
    told = located.kind == FILE and request.given_fields()
    config = request.our_config(None if told else located.home)

    def rules_of(tensors: Tensors) -> list[Rule]:
        return wrapping.around(
            lambda plain: canonical_rules(content.layout, config, plain), tensors, content.layout
        )

    found = name_optimizer(content, config, rules_of, request.parameter_names)
    place = located.home / ORIGIN if located.home else None
    origin = Origin.load(place) if place is not None and place.exists() else None
    rules = rules_of(found.content.tensors)
    notes = [*wrapping.notes(False), *content.notes, *found.notes]
    return Import(
        request.source, located, found.content, None, config, rules, origin,
        dropped | found.dropped, notes,
        groups=renamed(found.groups, moment_pairs(rules, content.layout.first)),
        kept=kept_groups(located.home / LEDGER, _compared(content)) if located.home else Kept(),
    )  # fmt: skip


def _compared(content: Content) -> bool:
    """Whether every moment is compared with what a conversion wrote, when it is read."""
    record, layout = content.record, content.layout
    moments = [name for name in content.tensors if name.startswith(layout.moments)]
    return record is not None and record.path.name == LEDGER and record.hashes.keys() >= {*moments}


def _read_foreign(
    request: SourceRequest,
    located: Located,
    content: Content,
    wrapping: Wrapping,
    family: Family,
    dropped: dict[str, str],
) -> Import:
    if content.layout is not TORCH:
        raise UserError(f"{content.tensors.label} has Flax names; {family.name} files have not")
    source = source_of(content, request, wrapping)
    reading = family.read_config(source)
    _check_flags(source, reading.config, family)

    def rules_of(tensors: Tensors) -> list[Rule]:
        return wrapping.around(
            lambda plain: import_rules(family, reading.config, replace(source, tensors=plain)),
            tensors,
            content.layout,
        )

    found = name_optimizer(content, reading.config, rules_of, request.parameter_names)
    headers, settings = dict(source.tensors), reading.settings or source.settings
    of_torch = [] if content.hyperparameters else found.groups
    origin = Origin(family.name, settings, headers, source.wrapper, of_torch, wrapping.lasting)
    rules = rules_of(found.content.tensors)
    notes = [*wrapping.notes(family.restores_names), *reading.notes]
    notes += [*content.notes, *found.notes]
    notes += sharing_notes(found.content.tensors, rules, reading.config)
    return Import(
        request.source, located, found.content, family, reading.config, rules, origin,
        dropped | found.dropped, notes, groups=renamed(found.groups, moment_pairs(rules)),
    )  # fmt: skip


def _check_passed_over(names: Sequence[str], family: Family | None) -> None:
    """What the user ignores may be a setting of families that know some of theirs alone."""
    if not names or (family is not None and family.passes_over):
        return
    flags, whose = " ".join(f"--ignore-setting {name}" for name in names), family and family.name
    told = (
        f"settings of {whose} models are all known" if whose else "all settings of ours are known"
    )
    raise UserError(f"{flags}: there is no such setting: {told}; leave it out")


def _check_flags(source: Source, config: TransformerConfig, family: Family) -> None:
    """A flag that the checkpoint's own settings contradict is not passed over."""
    faults = Faults()
    for name, value in source.flags.items():
        found = getattr(config, name)
        faults.require(found == value, f"{name} {value!r} was given; its settings say {found!r}")
    faults.raise_if_any(f"{source.tensors.label} is a {family.name} checkpoint")
