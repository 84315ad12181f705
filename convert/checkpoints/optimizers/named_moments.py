"""The moments of a torch optimizer beside the weights they belong to, under the weights' names."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convert.checkpoints.content import Content, left_out
from convert.checkpoints.layouts import FIRST, SECOND
from convert.checkpoints.loops.moments import fit_moments
from convert.checkpoints.optimizers.adam import FIRST_KEY, SECOND_KEY, check_adam, resembling
from convert.checkpoints.optimizers.state_form import check_form, read_numbers
from convert.checkpoints.optimizers.torch_states import Group, OptimizerPart, name_state, names_in
from convert.checkpoints.records import checked
from convert.core.rules import ASIDE, Rule
from convert.core.tensors import Joined, Tensors
from convert.formats.content import FileTensors, some_of
from convert.formats.torch_file.tensors import StoredTensor, view
from transformer_spec import TransformerConfig, UserError, trained_names

BY_ORDER = (
    "the optimizer's parameters have no names: they are taken in the order of the weights in the "
    "file, which their shapes do not contradict; --parameter-names FILE says another order"
)
BY_GROUPS = (
    "the optimizer's parameters have no names: its two groups are taken as they are usually made "
    "(one of matrices, or of all but biases, or but biases and norms; one of the rest), each in "
    "the order of the weights in the file, which their shapes do not contradict; "
    "--parameter-names FILE says another order"
)
EMPTY = "the optimizer in {} has no moments yet: there is nothing to carry"
FROZEN = "{} parameters have no moments, as they were frozen: zeros stand for them"
THAWED = "the moments of {} are left out: it was trained there, and never is here"
ODD = "settings of the optimizer's groups that are neither numbers nor texts are left out: {}"
BOTH = (FIRST, SECOND)
POSITIONS = "pos_embedding.weight"
RulesOf = Callable[[Tensors], list[Rule]]


class Parameters(NamedTuple):
    """Name -> shape of what an optimizer may hold, and which of them are never trained."""

    shapes: dict[str, tuple[int, ...]]
    untrained: set[str]


@dataclass(frozen=True)
class Named:
    """Content with its moments, the optimizer's groups, and what to say about them.

    ``dropped`` are moments of what is never trained here, name -> reason.
    """

    content: Content
    groups: list[Group] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)


def name_optimizer(
    content: Content, config: TransformerConfig, rules_of: RulesOf, names: Path | None
) -> Named:
    """The content with moments as tensors, if it has a torch optimizer.

    One that cannot be carried is left out, and a note says why; where the user names its
    parameters, that is a UserError.
    """
    part = content.optimizer
    if part is None:
        if names is not None:
            raise UserError(f"--parameter-names: {content.tensors.label} has no torch optimizer")
        content, dropped, notes = fit_moments(content, rules_of)
        told = [*[content.unread] * bool(content.unread), *content.told, *notes]
        return Named(content, _one_group(content), told, dropped)
    try:
        return _carried(content, part, config, rules_of, names)
    except UserError as error:
        if names is not None:
            raise
        return Named(replace(content, optimizer=None), notes=[left_out(error)])


def _one_group(content: Content) -> list[Group]:
    """That of all moments, where a loop's state holds the settings of its optimizer."""
    first = content.layout.first
    names = [name.removeprefix(first) for name in content.tensors if name.startswith(first)]
    return [Group(names, dict(content.hyperparameters))] if content.hyperparameters else []


def _carried(
    content: Content,
    part: OptimizerPart,
    config: TransformerConfig,
    rules_of: RulesOf,
    names: Path | None,
) -> Named:
    given, label = read_names(names) if names else None, str(part.file.path)
    check_form(part.state, label)
    if not part.state["state"]:
        return Named(replace(content, optimizer=None), notes=[EMPTY.format(label)])
    check_adam(part.state, label)
    state, odd = read_numbers(part.state, part.file, label)
    part = replace(part, state=state)
    has_names = names_in(part.state["param_groups"]) is not None
    if content.container != "pt" and given is None and not has_names:
        raise UserError(
            f"{part.file.path}: its parameters have numbers only, and {content.container} files do "
            "not keep the order that they count; give --parameter-names FILE, one name a line in "
            "the order in which the optimizer got them"
        )
    known = given or names_in(part.state["param_groups"]) or []
    rules = rules_of(content.tensors)
    parameters = _parameters(content.tensors, rules, config, known)
    named = _named(content, part, parameters, given, has_names)
    told = resembling(state["param_groups"]) + [ODD.format(some_of(odd))] * bool(odd)
    return replace(named, notes=named.notes + told)


def _named(
    content: Content,
    part: OptimizerPart,
    parameters: Parameters,
    given: list[str] | None,
    has_names: bool,
) -> Named:
    label = str(part.file.path)
    shapes, untrained = parameters
    part = replace(part, state=unflattened(part.state, shapes, untrained))
    state = name_state(part.state, shapes, float, given, label, untrained)
    frozen = [name for name in shapes if name not in (*state.first, *untrained)]
    kept = [name for name in state.first if name not in untrained]
    moments = {FIRST + name: state.first[name] for name in kept}
    moments |= {SECOND + name: state.second[name] for name in kept}
    by_order = BY_ORDER if len(state.groups) == 1 else BY_GROUPS
    notes = [] if given or has_names else [by_order]
    notes += [THAWED.format(name) for name in state.first if name in untrained]
    if moments and frozen:
        notes.append(FROZEN.format(len(frozen)))
        dtype = next(iter(moments.values())).dtype
        nothing = {name: np.broadcast_to(np.zeros((), dtype), shapes[name]) for name in frozen}
        moments |= {kind + name: zeros for name, zeros in nothing.items() for kind in BOTH}
    if not moments:
        return Named(content, state.groups, [EMPTY.format(label)])
    if content.record is not None:
        content.record.check_count(state.count, label)
    named = checked(FileTensors(part.file, moments, False), content.record)
    both = Joined(content.tensors.label, [content.tensors, named])
    return Named(replace(content, tensors=both, count=state.count), state.groups, notes)


def unflattened(
    state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], untrained: Collection[str]
) -> Mapping[str, Any]:
    """The state of one flat parameter, which fairseq's FP16Optimizer makes of all, cut into theirs.

    They lie in it one after the other, in the model's order. Another state is as it was.
    """
    trained = {name: shape for name, shape in shapes.items() if name not in untrained}
    moments = [state["state"].get(0, {}).get(key) for key in (FIRST_KEY, SECOND_KEY)]
    total = sum(map(math.prod, trained.values()))
    if len(state["state"]) != 1 or not all(_is_flat(moment, total) for moment in moments):
        return state
    cut, start = dict[int, dict[str, Any]](), 0
    for index, shape in enumerate(trained.values()):
        views = [view(moment, start, shape) for moment in moments]
        cut[index] = {**state["state"][0], FIRST_KEY: views[0], SECOND_KEY: views[1]}
        start += math.prod(shape)
    settings = {**state["param_groups"][0], "params": list(cut)}
    return {**state, "state": cut, "param_groups": [settings]}


def _is_flat(moment: Any, total: int) -> bool:
    return isinstance(moment, StoredTensor) and (moment.shape, moment.strides) == ((total,), (1,))


def _parameters(
    tensors: Tensors, rules: list[Rule], config: TransformerConfig, known: list[str]
) -> Parameters:
    """Names and shapes of what an optimizer may hold, in the file's order.

    Of tied names it is the one among the ``known`` ones, else the first. Stored tables that are
    never trained are parameters too in some libraries.
    """
    trained, later, own = set(trained_names(config)), set[str](), set[str]()
    place = {name: number for number, name in enumerate(tensors)}
    place |= dict.fromkeys(known, -1)
    tables = {
        rule.sources[0]
        for rule in rules
        if rule.targets
        and rule.targets[0].startswith(ASIDE)
        and len(tensors[rule.sources[0]].shape) > 1
    }
    tables |= {
        rule.sources[0]
        for rule in rules
        for name in rule.targets
        if name.endswith(POSITIONS) and name not in trained
    }
    for rule in rules:
        if rule.targets and trained.issuperset(rule.targets):
            own.update(rule.sources)
            if len(rule.targets) == 1 and len(rule.sources) > 1:
                first = min(rule.sources, key=lambda name: place.get(name, len(place)))
                later.update(name for name in rule.sources if name != first)
    chosen = (own - later) | tables
    return Parameters({n: h.shape for n, h in tensors.items() if n in chosen}, tables)


def read_names(path: Path) -> list[str]:
    """One name a line; an unreadable or empty file is a UserError."""
    try:
        names = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UserError(f"--parameter-names {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--parameter-names {path} is no text in UTF-8") from error
    if not names:
        raise UserError(f"--parameter-names {path} is empty")
    return names
