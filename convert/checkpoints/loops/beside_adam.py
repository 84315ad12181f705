"""What optax keeps around and beside the state of Adam: settings that can be read, and the rest.

``inject_hyperparams`` has the settings of the optimizer inside it as arrays. What other parts of a
chain and wrappers keep has no place where Adam's state goes on alone, and is named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.checkpoints.loops.places import is_optimizers
from convert.core.pipeline import is_float
from convert.core.tensors import Tensors
from convert.formats.content import some_of
from transformer_spec import UserError

HYPERPARAMETERS, MINI_STEP = "hyperparams", "mini_step"
GATHERED = "acc_grads"  # of optax.MultiSteps
# What torch calls them: betas are a pair of two.
RATES = {"learning_rate": "lr", "eps": "eps", "weight_decay": "weight_decay"}
BETAS = ("b1", "b2")
OF_NO_USE = {"eps_root": 0.0}  # what changes nothing where it is this
READ = (
    "settings of the optimizer are read from {} ({}): an optimizer.pt has the same for all "
    "parameters"
)
LAST_RATE = "; lr is that of the last step: a schedule is not in it"
MASK = ", as a mask of weight decay is not in the state"
UNREAD = "settings of the optimizer that are not read: {}"
LOST = (
    "beside Adam's state the optimizer keeps what is not carried: {}; training goes on here "
    "without it"
)
MEANINGS = {
    "grad_acc": "updates that apply_every gathers",
    "ema": "means of updates",
    "trace": "momentum",
    "previous_gradient": "gradients of the step before",
    "mu": "moments of another optimizer",
    "nu": "moments of another optimizer",
}


@dataclass(frozen=True)
class Hyperparameters:
    """Settings of the optimizer under torch's names, and what to say of them."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def read_hyperparameters(
    stored: Mapping[str, str], counts: Collection[str], tensors: Tensors
) -> Hyperparameters:
    """The settings that one inject_hyperparams around all states of Adam keeps.

    ``stored`` are names without what nnx adds -> those of the tensors, ``counts`` Adam's own.
    """
    held = dict[str, dict[str, str]]()
    for name, there in stored.items():
        place, _, key = name.rpartition(".")
        if place.rpartition(".")[2] == HYPERPARAMETERS and is_optimizers(name):
            held.setdefault(place, {})[key] = there
    if not held:
        return Hyperparameters()
    place, keys = next(iter(held.items()))
    around = place.removesuffix(HYPERPARAMETERS)
    if len(held) > 1 or not all(count.startswith(around) for count in counts):
        return Hyperparameters(notes=[UNREAD.format(some_of(list(held)))])
    numbers = {key: _number(tensors, there) for key, there in keys.items()}
    return _as_torch({k: x for k, x in numbers.items() if x is not None}, place, list(keys))


def _number(tensors: Tensors, name: str) -> float | None:
    header = tensors[name]
    if header.shape != () or not (header.dtype.kind in "iu" or is_float(header.dtype)):
        return None
    try:
        number = float(np.asarray(tensors.read(name)).astype(np.float64))
    except UserError:
        return None  # it is damaged, and stands in the way of nothing
    return number if np.isfinite(number) else None


def _as_torch(numbers: Mapping[str, float], place: str, keys: list[str]) -> Hyperparameters:
    """Numbers under torch's names; those that have none there are named."""
    settings: dict[str, Any] = {name: numbers[key] for key, name in RATES.items() if key in numbers}
    known = {*RATES, *(key for key, unused in OF_NO_USE.items() if numbers.get(key) == unused)}
    if all(key in numbers for key in BETAS):
        settings["betas"] = tuple(numbers[key] for key in BETAS)
        known.update(BETAS)
    others = [f"{place}.{key}" for key in keys if key not in known or key not in numbers]
    mask = MASK if "weight_decay" in settings else ""
    rate = LAST_RATE if "lr" in settings else ""
    notes = [READ.format(place, ", ".join(settings)) + mask + rate] if settings else []
    return Hyperparameters(settings, notes + [UNREAD.format(some_of(others))] * bool(others))


def lost_beside_adam(
    names: Sequence[str], weights: Collection[str], tensors: Tensors, stored: Mapping[str, str]
) -> list[str]:
    """A note of arrays in an optimizer's state that are no moments of Adam, by the parts they are.

    Gradients that were gathered for an update that has been made are nothing that is lost.
    """
    parts = dict[str, list[str]]()
    for name in names:
        parts.setdefault(_part(name, weights), []).append(name)
    told = []
    for part, inside in parts.items():
        meaning = _meaning(part, tensors, stored)
        if meaning is not None:
            count = f"{len(inside)} arrays" if len(inside) > 1 else "1 array"
            told.append(f"{part} ({count}{meaning and ', '}{meaning})")
    return [LOST.format(some_of(told))] if told else []


def _part(name: str, weights: Collection[str]) -> str:
    """What stands before the name of a weight; the whole name where there is none."""
    keys = name.split(".")
    starts = range(1, len(keys))
    return next((".".join(keys[:n]) for n in starts if ".".join(keys[n:]) in weights), name)


def _meaning(part: str, tensors: Tensors, stored: Mapping[str, str]) -> str | None:
    """What a part is, where it is known; None where it holds nothing that is needed."""
    above, _, key = part.rpartition(".")
    if key != GATHERED:
        return MEANINGS.get(key, "")
    steps = stored.get(f"{above}.{MINI_STEP}".removeprefix("."))
    count = _number(tensors, steps) if steps is not None else None
    if count is None:
        return "gradients that were gathered"
    plural = "" if count == 1 else "s"
    told = f"gradients of {count:g} mini-step{plural} that are in no update yet"
    return told if count else None
