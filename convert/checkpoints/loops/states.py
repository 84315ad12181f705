"""A user's own loop with optax: where weights and Adam's moments are among the arrays of its state.

``optax.adamw``, a chain with it and a wrapper around it keep Adam's state at different depths, and
a TrainState or an ``nnx.Optimizer`` puts more around that; Adam's state itself always is ``count``
and, named as the weights are, ``mu`` and ``nu``. What else an optimizer keeps belongs to its loop,
and never stands in the way of the weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from convert.checkpoints.layouts import BARE_ORBAX, COUNT, ORBAX, TORCH, Layout, has_own_parts
from convert.checkpoints.loops.beside_adam import (
    Hyperparameters,
    lost_beside_adam,
    read_hyperparameters,
)
from convert.checkpoints.loops.places import find_place, is_optimizers, is_random
from convert.core.rules import ASIDE
from convert.core.tensors import Renamed, Tensors
from convert.families.twinformer import is_flax
from convert.formats.content import some_of
from transformer_spec import UserError

VALUE = ".value"  # what flax.nnx puts behind the name of each variable of a State
LOOPS_OWN = "of the loop that trained it: neither a weight nor a moment"
GENERATOR = "a state of random numbers, no weight"
NOT_CARRIED = "of an optimizer, and no moment of Adam that is carried"
COPY = "a copy of the weights; --key {} reads it"
ELSEWHERE = "beside the weights, under another key"
LEFT_OUT = "the optimizer is left out, the weights are not: {}"
RAW_ALONE = "weights that training would go on from, without the state of an optimizer"
# Whose the fields of a state are that is not Adam's, in the order in which they are looked for.
OTHERS = {
    "nu_max": "Adam with amsgrad",
    "v_row": "Adafactor",
    "sum_of_squares": "Adagrad",
    "grad_sq_ema": "the Adam of flax.optim",
    "nu": "RMSProp",
    "mu": "Lion",
    "trace": "SGD with momentum",
}


@dataclass(frozen=True)
class LoopState:
    """Weights and moments under the names of a layout, the optimizer's steps where it is Adam, and
    what only the loop needs, name -> reason; ``notes`` say what of that might be missed, ``unread``
    why an optimizer is left out, ``told`` what there is to say of one that is carried, ``settings``
    its own under torch's names.
    """

    tensors: Tensors
    layout: Layout
    count: int | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unread: str = ""
    told: list[str] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Adam:
    """The state of Adam: weight -> the name of its moment, of both, and the steps.

    ``prefix`` stands before ``mu`` and ``nu`` where there is one state alone.
    """

    first: Mapping[str, str] = field(default_factory=dict)
    second: Mapping[str, str] = field(default_factory=dict)
    counts: list[str] = field(default_factory=list)
    count: int | None = None
    prefix: str | None = None


def find_loop_state(tensors: Tensors, key: str | None = None) -> LoopState:
    """Weights, and Adam's moments where there are any, in the state of a loop.

    ``key`` says where the weights are, where several could be them. Weights and moments of other
    libraries' models are under the names that a torch file would have.
    """
    stored = {name.removesuffix(VALUE): name for name in tensors}
    place, copies = _place(stored, key, tensors.label)
    weights = {
        name.removeprefix(place): there
        for name, there in stored.items()
        if name.startswith(place) and not _is_beside(name, place, tensors[there].dtype.kind)
    }
    adam, unread = _adam_or_why(stored, weights, tensors)
    if key is not None and adam.counts and _usual_place(stored, tensors.label) not in (place, None):
        adam, unread = Adam(), LEFT_OUT.format(f"its moments are not those of {key}")
    layout = _layout(weights, place, adam)
    names = {layout.weights + name: there for name, there in weights.items()}
    names |= {layout.first + name: there for name, there in adam.first.items()}
    names |= {layout.second + name: there for name, there in adam.second.items()}
    taken = {*names.values(), *adam.counts}
    others = [name for name in tensors if name not in taken]
    own = {name for name in others if _is_ours(name, layout, adam)}
    dropped = {n: _reason(n, copies, tensors) for n in others if n not in own}
    twice = [name for name in others if name in names]
    if twice:
        raise UserError(f"{tensors.label}: {some_of(twice)} would come twice without {place!r}")
    found = Renamed(tensors, names | {name: name for name in others})
    around = read_hyperparameters(stored, adam.counts, tensors) if adam.first else Hyperparameters()
    lost = _lost(dropped, weights, tensors, stored) if adam.first else []
    return LoopState(
        found, layout, adam.count, dropped, _told(dropped, copies), unread,
        [*around.notes, *lost], around.settings,
    )  # fmt: skip


def _lost(
    dropped: Mapping[str, str],
    weights: Collection[str],
    tensors: Tensors,
    stored: Mapping[str, str],
) -> list[str]:
    names = [name.removesuffix(VALUE) for name, why in dropped.items() if why == NOT_CARRIED]
    return lost_beside_adam(names, weights, tensors, stored)


def _adam_or_why(
    stored: Mapping[str, str], weights: Mapping[str, str], tensors: Tensors
) -> tuple[Adam, str]:
    """Adam's state, or why an optimizer is left out."""
    try:
        adam = _find_adam(stored, weights, tensors)
    except UserError as error:
        return Adam(), LEFT_OUT.format(error)
    return adam, "" if adam.counts else _other_optimizer(stored, weights, tensors)


def _place(stored: Mapping[str, str], key: str | None, label: str) -> tuple[str, list[str]]:
    """Where the weights are; by their moments where names of a model tell nothing."""
    own = {name for name in stored if not name.startswith((ORBAX.raw, ASIDE))}
    place, copies = find_place(own, key, label)
    prefixes = _adam_prefixes(stored)
    if place or copies or key or not prefixes:
        return place, copies
    one = next(n for n in stored if n.startswith(f"{prefixes[0]}mu."))
    one = one.removeprefix(f"{prefixes[0]}mu.")
    places = [n.removesuffix(one) for n in own if n.endswith(one) and not is_optimizers(n)]
    whole = [place for place in places if not place or place.endswith(".")]
    return (whole[0] if len(whole) == 1 else place), copies


def _usual_place(stored: Mapping[str, str], label: str) -> str | None:
    """Where the weights are that are read unless a key says otherwise; None where it has to."""
    try:
        return _place(stored, None, label)[0]
    except UserError:
        return None


def _is_beside(name: str, place: str, kind: str) -> bool:
    """Whether an array below the weights' place is none of them."""
    name = name.removeprefix(place)
    if is_optimizers(name) or is_random(name, kind) or name.startswith((ORBAX.raw, ASIDE)):
        return True
    return kind in "iu" and name in ("step", COUNT)


def _adam_prefixes(names: Collection[str]) -> list[str]:
    """What stands before ``count``, ``mu.`` and ``nu.`` of each state of Adam."""
    ends = [name.removesuffix(COUNT) for name in names if f".{name}".endswith(f".{COUNT}")]
    return [p for p in ends if all(any(n.startswith(p + x) for n in names) for x in ("mu.", "nu."))]


def _find_adam(stored: Mapping[str, str], weights: Mapping[str, str], tensors: Tensors) -> Adam:
    """All states of Adam as one; a UserError says why they cannot be."""
    adams = _adam_prefixes(stored)
    if not adams:
        return _before_first_step(stored, tensors)
    if any(name.startswith(tuple(f"{adam}nu_max." for adam in adams)) for name in stored):
        raise UserError("it is Adam with amsgrad, which keeps a maximum too")
    first, second = (_moments(stored, adams, part) for part in ("mu.", "nu."))
    for name in sorted(first.keys() ^ second.keys()):
        raise UserError(f"{name!r} has one moment of Adam in place of two")
    for name, there in first.items():
        if name not in weights:
            raise UserError(f"it holds moments of {name!r}, which is none of the weights")
        shapes = [tensors[found].shape for found in (there, second[name], weights[name])]
        if len(set(shapes)) > 1:
            found = ", ".join(map(str, map(list, shapes)))
            raise UserError(f"moments and weight of {name!r} have different shapes ({found})")
    counts = [stored[adam + COUNT] for adam in adams]
    prefix = adams[0] if len(adams) == 1 and not _has_value(first) else None
    return Adam(first, second, counts, _one_count(tensors, counts), prefix)


def _before_first_step(stored: Mapping[str, str], tensors: Tensors) -> Adam:
    """The state of our own training that has no moments yet: a count alone."""
    if [name for name in stored if is_optimizers(name)] != [ORBAX.count]:
        return Adam()
    counts = [stored[ORBAX.count]]
    return Adam(counts=counts, count=_one_count(tensors, counts))


def _has_value(moments: Mapping[str, str]) -> bool:
    return any(name.endswith(VALUE) for name in moments.values())


def _moments(stored: Mapping[str, str], adams: list[str], part: str) -> dict[str, str]:
    """Weight -> its moment; several states of Adam have each its own weights."""
    found = dict[str, str]()
    for prefix in (adam + part for adam in adams):
        for name in (name for name in stored if name.startswith(prefix)):
            weight = name.removeprefix(prefix)
            if weight in found:
                raise UserError(f"{weight!r} has moments in several states of Adam")
            found[weight] = stored[name]
    return found


def _one_count(tensors: Tensors, names: list[str]) -> int:
    counts = sorted({step_count(tensors, name) for name in names})
    if len(counts) > 1:
        raise UserError(
            f"{tensors.label}: states of Adam have made different numbers of steps ({counts}); one "
            "count for all is needed"
        )
    return counts[0]


def step_count(tensors: Tensors, name: str) -> int:
    """The number of steps that an array holds; what is none is a UserError."""
    array = tensors.read(name)
    if array.shape != () or array.dtype.kind not in "iu" or array < 0:
        found = f"{array} ({array.dtype})"
        raise UserError(f"{tensors.label}: the optimizer's step count is {found}")
    return int(array)


def _other_optimizer(
    stored: Mapping[str, str], weights: Mapping[str, str], tensors: Tensors
) -> str:
    """What to say of an optimizer that is not Adam; nothing where it keeps only counts."""
    others = {
        name: tensors[there].shape
        for name, there in stored.items()
        if is_optimizers(name) and there not in weights.values()
    }
    kept = [name for name, shape in others.items() if shape]
    if not kept:
        return ""
    keys = {key for name in kept for key in name.split(".")}
    field = next((field for field in OTHERS if field in keys), None)
    told = f"it keeps {field}, as {OTHERS[field]} does" if field else f"it keeps {some_of(kept)}"
    return LEFT_OUT.format(f"{told}, and only moments of Adam and AdamW are carried")


def _layout(weights: Collection[str], place: str, adam: Adam) -> Layout:
    """Our twins' names, of either; else those of another library, as in a torch file."""
    if not has_own_parts(weights):
        return TORCH
    layout = ORBAX if place or adam.counts else BARE_ORBAX
    layout = layout._replace(weights=place, twin="flax" if is_flax(weights) else "torch")
    if adam.prefix is None:
        return layout
    return layout._replace(first=f"{adam.prefix}mu.", second=f"{adam.prefix}nu.")


def _is_ours(name: str, layout: Layout, adam: Adam) -> bool:
    """Whether an array is of what our training keeps beside weights and moments."""
    raw = layout is not TORCH and adam.count is not None and name.startswith(layout.raw)
    return raw or name.startswith(ASIDE)


def _reason(name: str, copies: list[str], tensors: Tensors) -> str:
    for copy in copies:
        if name.startswith(copy):
            return COPY.format(copy.rstrip("."))
    if is_random(name, tensors[name].dtype.kind):
        return GENERATOR
    scalar = tensors[name].shape == ()
    if is_optimizers(name):
        return LOOPS_OWN if scalar else NOT_CARRIED
    if scalar and tensors[name].dtype.kind in "iu":
        return LOOPS_OWN
    return RAW_ALONE if name.startswith(ORBAX.raw) else ELSEWHERE


def _told(dropped: Mapping[str, str], copies: list[str]) -> list[str]:
    """What is beside the weights and might be missed."""
    notes = [
        f"{place} holds a copy of the weights, which is left out; --key {place} reads it"
        for place in (copy.rstrip(".") for copy in copies)
    ]
    random = [name for name, reason in dropped.items() if reason == GENERATOR]
    others = Counter(n.partition(".")[0] for n, reason in dropped.items() if reason == ELSEWHERE)
    if random:
        notes.append(f"left out, as states of random numbers and no weights: {some_of(random)}")
    if others:
        told = some_of([f"{top} ({count} arrays)" for top, count in others.items()])
        notes.append(f"left out, as they lie beside the weights: {told}")
    return notes
