"""A user's own loop with optax: where weights and Adam's moments are among the arrays of its state.

``optax.adamw``, a chain with it and a wrapper around it keep Adam's state at different depths, and
a TrainState or an ``nnx.Optimizer`` puts more around that; Adam's state itself always is ``count``
and, named as the weights are, ``mu`` and ``nu``. What else an optimizer keeps belongs to its loop.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from convert.checkpoints.layouts import COUNT, ORBAX, OWN_PARTS, TORCH, Layout
from convert.core.tensors import Renamed, Tensors
from convert.families.twinformer import is_flax
from transformer_spec import Faults, UserError

VALUE = ".value"  # what flax.nnx puts behind the name of each variable of a State
LOOPS_OWN = "of the loop that trained it: neither a weight nor a moment"


@dataclass(frozen=True)
class LoopState:
    """Weights and moments under the names of a layout, the optimizer's steps, and what only the
    loop needs, name -> reason.
    """

    tensors: Tensors
    layout: Layout
    count: int
    dropped: Mapping[str, str]


def find_loop_state(tensors: Tensors, weights: str | None = None) -> LoopState | None:
    """The parts of a loop's state; None where there is no state of Adam.

    ``weights`` says under which key the weights are, where several could be them. Weights and
    moments of other libraries' models are under the names that a torch file would have.
    """
    stored = {name.removesuffix(VALUE): name for name in tensors}
    adams = _adam_prefixes(stored)
    if not adams:
        return None
    first, second = (_moments(stored, adams, part, tensors.label) for part in ("mu.", "nu."))
    place = _weights_prefix(stored, adams, first, weights, tensors.label)
    names = {n.removeprefix(place): s for n, s in stored.items() if _is_weight(n, place, adams)}
    layout = _layout(names)
    renamed = {layout.weights + name: there for name, there in names.items()}
    renamed |= {layout.first + name: there for name, there in first.items()}
    renamed |= {layout.second + name: there for name, there in second.items()}
    counts = [stored[adam + COUNT] for adam in adams]
    others = [n for n in tensors if n not in {*renamed.values(), *counts}]
    dropped = {n: LOOPS_OWN for n in others if _is_loops(n, tensors, adams)}
    found = Renamed(tensors, renamed | {name: name for name in others})
    return LoopState(found, layout, _one_count(tensors, counts), dropped)


def _adam_prefixes(names: Collection[str]) -> list[str]:
    """What stands before ``count``, ``mu.`` and ``nu.`` of each state of Adam."""
    ends = [name.removesuffix(COUNT) for name in names if f".{name}".endswith(f".{COUNT}")]
    return [p for p in ends if all(any(n.startswith(p + x) for n in names) for x in ("mu.", "nu."))]


def _moments(stored: Mapping[str, str], adams: list[str], part: str, label: str) -> dict[str, str]:
    """Weight -> its moment; several states of Adam have each its own weights."""
    found, faults = dict[str, str](), Faults()
    for prefix in (adam + part for adam in adams):
        for name in (name for name in stored if name.startswith(prefix)):
            weight = name.removeprefix(prefix)
            faults.require(weight not in found, f"{weight!r} has moments in several states of Adam")
            found[weight] = stored[name]
    faults.raise_if_any(label)
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


def _root(adam: str) -> str:
    """The first key of what holds an optimizer, or nothing where Adam's state is at the top."""
    return adam.partition(".")[0] + "." if "." in adam else ""


def _weights_prefix(
    stored: Mapping[str, str],
    adams: list[str],
    moments: Collection[str],
    weights: str | None,
    label: str,
) -> str:
    """What stands before the names of weights: all that have moments are there."""
    if weights is not None:
        return f"{weights}."
    one = next(iter(moments))
    places = [name.removesuffix(one) for name in stored if name.endswith(one)]
    fitting = [
        place
        for place in places
        if place not in (ORBAX.raw, *(a + part for a in adams for part in ("mu.", "nu.")))
        and (not place or place.endswith("."))
        and all(place + name in stored for name in moments)
    ]
    if len(fitting) != 1:
        found = ", ".join(place.rstrip(".") or "(the top)" for place in fitting) or "nowhere"
        raise UserError(
            f"{label} holds moments of Adam, and weights of their names are in several places or "
            f"none ({found}); say with --key which are the weights"
        )
    return fitting[0]


def _is_weight(name: str, place: str, adams: list[str]) -> bool:
    roots = [root for root in map(_root, adams) if root]
    others = [ORBAX.raw, *roots, *(adam + part for adam in adams for part in ("mu.", "nu."))]
    inside = name.startswith(place) and not name.startswith(tuple(others))
    return inside and not (place == "" and name in ("step", COUNT))


def _is_loops(name: str, tensors: Tensors, adams: list[str]) -> bool:
    """Whether an array that is no moment is the optimizer's, or counts the loop's steps."""
    inside = name.startswith(tuple(root for root in map(_root, adams) if root))
    return inside or name.removesuffix(VALUE) == "step" and tensors[name].shape == ()


def _layout(names: Collection[str]) -> Layout:
    """Our twins' names, of either; else those of another library, as in a torch file."""
    if not any(name.startswith(OWN_PARTS) for name in names):
        return TORCH
    return ORBAX if is_flax(names) else ORBAX._replace(twin="torch")
