"""The state of torch.optim.Adam and AdamW: whose moments are whose, and back again.

``state_dict()`` numbers the parameters group after group and keeps no names unless the optimizer
was given named parameters. Names are found by the order of the parameters and proved by shapes;
where several orders fit the shapes, the user has to say which (``--parameter-names``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convert.checkpoints.optimizers.adam import FIRST_KEY, SECOND_KEY, STEP_KEY, check_adam
from convert.formats.content import ContentFile
from transformer_spec import Faults, UserError

NORM = re.compile(r"layernorm|rmsnorm|(^|[._])norm($|\.)")  # of a module, in the Trainer's words
Shape = tuple[int, ...]
Sort = Callable[[str, Shape], bool]

# Who is in the first of two groups, as people write it; the other group has the rest.
DIVISIONS: dict[str, Sort] = {
    "matrices": lambda name, shape: len(shape) > 1,
    "all but biases": lambda name, shape: not name.endswith("bias"),
    "all but biases and norms": lambda name, shape: (
        not name.endswith("bias") and "norm" not in name.lower()
    ),
    # transformers' Trainer, to which T5's relative_attention_bias.weight is a bias too
    "nothing that is called bias or norm": lambda name, shape: (
        "bias" not in name and not NORM.search(name.lower())
    ),
}


@dataclass(frozen=True)
class OptimizerPart:
    """The ``state_dict()`` of a torch optimizer in a file, its arrays not read yet."""

    file: ContentFile
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Group:
    """Parameters that are optimized alike, in order, and how: learning rate, betas and so on."""

    names: list[str]
    settings: dict[str, Any]


def group_from(names: Any, settings: Any) -> Group:
    """A group from JSON, which has lists where torch has a pair of betas; else a ValueError."""
    if not isinstance(settings, dict) or not isinstance(names, list):
        raise ValueError("its optimizer_groups are not what was written")
    betas = settings.get("betas")
    pair = {"betas": tuple(betas)} if isinstance(betas, list) else {}
    return Group([str(name) for name in names], settings | pair)


@dataclass(frozen=True)
class NamedState:
    """Both moments by the parameters' own names, as they lie in the file, and the step count."""

    first: dict[str, Any]
    second: dict[str, Any]
    count: int
    groups: list[Group]


def is_optimizer_state(content: Any) -> bool:
    """Whether a mapping looks like an optimizer's ``state_dict()``."""
    return isinstance(content, Mapping) and {"state", "param_groups"} <= content.keys()


def name_state(
    content: Mapping[str, Any],
    parameters: Mapping[str, Shape],
    step_of: Callable[[Any], float],
    names: Sequence[str] | None = None,
    label: str = "the optimizer state",
    untrained: Collection[str] = (),
) -> NamedState:
    """The state of parameters by name; one that has no moments was frozen.

    ``parameters`` are the model's in its own order (tied ones once, no buffers), those that are
    never trained, ``untrained``, among them; ``names`` is the order of the optimizer if the user
    knows it; ``step_of`` reads a step, which newer versions keep as a tensor. What is not Adam's,
    or fits no order or several, is a UserError.
    """
    groups, state = content["param_groups"], content["state"]
    check_adam(content, label)
    shapes = {index: tuple(entry[FIRST_KEY].shape) for index, entry in state.items()}
    order = _order(groups, shapes, parameters, names, untrained, label)
    held = {name: state[index] for index, name in order.items() if index in state}
    return NamedState(
        {name: entry[FIRST_KEY] for name, entry in held.items()},
        {name: entry[SECOND_KEY] for name, entry in held.items()},
        _count([step_of(entry[STEP_KEY]) for entry in held.values()], label),
        [_named_group(group, order) for group in groups],
    )


def _named_group(group: Mapping[str, Any], order: Mapping[Any, str]) -> Group:
    settings = {k: v for k, v in group.items() if k not in ("params", "param_names")}
    return Group([order[index] for index in group["params"]], settings)


def _count(steps: Sequence[float], label: str) -> int:
    different = sorted(set(steps))
    if len(different) > 1:
        raise UserError(
            f"{label}: parameters have made different numbers of steps ({different[0]:g} to "
            f"{different[-1]:g}); one count for all is needed"
        )
    if different and (different[0] != int(different[0]) or different[0] < 0):
        raise UserError(f"{label}: the step count is {different[0]}, which is no whole number")
    return int(different[0]) if different else 0


def _order(
    groups: Sequence[Mapping[str, Any]],
    shapes: Mapping[Any, Shape],
    parameters: Mapping[str, Shape],
    names: Sequence[str] | None,
    untrained: Collection[str],
    label: str,
) -> dict[Any, str]:
    """Index in the state -> name."""
    indices = [index for group in groups for index in group["params"]]
    given = names or names_in(groups)
    if given is not None:
        return _proved(indices, list(given), shapes, parameters, label)
    trained = [name for name in parameters if name not in untrained]
    fitting = _fitting(groups, shapes, parameters, trained, untrained)
    # Some libraries train what is stored and never trained here.
    fitting = fitting or _fitting(groups, shapes, parameters, trained, ())
    if len(fitting) == 1:
        return fitting[0]
    found = "no known order of the parameters fits" if not fitting else "several orders fit"
    raise UserError(
        f"{label}: {len(indices)} parameters in {len(groups)} groups for {len(trained)} of the "
        f"model; {found} the shapes. Give --parameter-names FILE, one name a line in the order in "
        "which the optimizer got them"
    )


def _fitting(
    groups: Sequence[Mapping[str, Any]],
    shapes: Mapping[Any, Shape],
    parameters: Mapping[str, Shape],
    trained: Sequence[str],
    without: Collection[str],
) -> list[dict[Any, str]]:
    """The orders in which all moments have their parameters' shapes, and some have none."""
    indices, found = [index for group in groups for index in group["params"]], []
    for names in dict.fromkeys((tuple(trained), tuple(parameters))):
        for names_in_order in _candidates(groups, {name: parameters[name] for name in names}):
            order = dict(zip(indices, names_in_order, strict=True))
            fits = all(
                parameters[order[index]] == shape and order[index] not in without
                for index, shape in shapes.items()
            )
            if fits and order not in found:
                found.append(order)
    return found


def names_in(groups: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """The names that optimizers of named parameters keep beside the numbers, or in their place."""
    params = [index for group in groups for index in group["params"]]
    if params and all(isinstance(one, str) and not one.isdecimal() for one in params):
        return params
    if not all("param_names" in group for group in groups):
        return None
    return [name for group in groups for name in group["param_names"]]


def _proved(
    indices: list[Any],
    names: list[str],
    shapes: Mapping[Any, Shape],
    parameters: Mapping[str, Shape],
    label: str,
) -> dict[Any, str]:
    faults = Faults()
    faults.require(len(names) == len(indices), f"{len(names)} names for {len(indices)} parameters")
    faults.require(len(set(names)) == len(names), "a name stands there twice")
    order = dict(zip(indices, names, strict=False))
    for index, name in order.items():
        if name not in parameters:
            faults.add(f"{name!r} is no parameter of the model", "are no parameters of the model")
        elif index in shapes and shapes[index] != parameters[name]:
            wanted = list(parameters[name])
            moments = list(shapes[index])
            faults.add(f"{name!r} is {wanted}, its moments are {moments}", "have moments of others")
    faults.raise_if_any(f"{label}: the parameters' names do not fit")
    return order


def _candidates(
    groups: Sequence[Mapping[str, Any]], parameters: Mapping[str, Shape]
) -> list[list[str]]:
    """The orders worth trying: the model's own, or two groups divided in a usual way."""
    sizes = [len(group["params"]) for group in groups]
    everything = list(parameters)
    if sum(sizes) != len(everything):
        return []
    if len(groups) == 1:
        return [everything]
    found = []
    for belongs in DIVISIONS.values() if len(groups) == 2 else ():
        first = [name for name in everything if belongs(name, parameters[name])]
        second = [name for name in everything if name not in set(first)]
        halves = [[first, second], [second, first]]
        found += [a + b for a, b in halves if [len(a), len(b)] == sizes]
    return found


def state_dict(
    groups: Sequence[Group],
    first: Callable[[str], Any],
    second: Callable[[str], Any],
    count: int,
    frozen: Collection[str] = (),
) -> dict[str, Any]:
    """What ``load_state_dict`` of an optimizer reads that was given the same groups.

    ``first`` and ``second`` give a parameter's moments, ``frozen`` ones have none.
    """
    state, numbered, start = {}, [], 0
    for group in groups:
        indices = range(start, start + len(group.names))
        for index, name in zip(indices, group.names, strict=True):
            if name in frozen:
                continue
            moments = {FIRST_KEY: first(name), SECOND_KEY: second(name)}
            state[index] = {STEP_KEY: float(count)} | moments
        params = {"params": list(indices), "param_names": list(group.names)}
        numbered.append(group.settings | params)
        start += len(group.names)
    return {"state": state if count else {}, "param_groups": numbered}
