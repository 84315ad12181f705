"""Where weights are among the arrays of a nested state: the keys that stand before their names.

A loop keeps its weights under ``params``, ``model``, ``state.params`` and the like, and beside them
an optimizer, averages, random numbers and counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from convert.formats.content import some_of
from transformer_spec import UserError

# Keys of optimizers, and of what optax and its predecessor keep in their states.
OPTIMIZERS = frozenset("optimizer optimizer_state optim optim_state opt tx".split())
STATES = frozenset(
    "opt_state opt_states param_states mu nu nu_max trace acc_grads grads v_row v_col inner_state "
    "inner_states inner_opt_state".split()
)
INSIDE = ("model", "target", "params")  # where an older optimizer kept the weights themselves
# Keys that say that weights are below them, and that no library has for a part of a model.
USUAL = ("params", "state", "train_state", "variables", "target", "state_dict", "weights")
PREFERRED = ("", *USUAL, "model", "module")
# Keys of averages of the weights, which are read where they are asked for.
AVERAGES = frozenset("ema ema_params ema_model ema_state average averages averaged shadow".split())
RANDOM = frozenset("rngs rng rng_key rng_state dropout_rng prng_key key keys".split())
# What the names of weights begin with, in our twins, in the Flax modules of transformers, in T5X.
MARKS = (
    r"encoder\.enc_layers\.\d",
    r"decoder\.dec_layers\.\d",
    r"(?:encoder|decoder)\.embedding\.(?:embedding|weight)$",
    r"(?:model\.)?shared\.embedding$",
    r"(?:encoder|decoder)\.(?:layers_\d+|encoder|decoder)\.",
    r"token_embedder\.embedding$",
)
MARK = re.compile(rf"((?:.+?\.)??)(?:{'|'.join(MARKS)})")


def find_place(names: Collection[str], key: str | None, label: str) -> tuple[str, list[str]]:
    """What stands before the names of weights, and the places of others that could be them.

    ``key`` is what the user says; where several places could be meant and none is the usual one,
    or nothing is under the key, a UserError says what there is.
    """
    below = [name for name in names if name.startswith(f"{key}.")] if key else list(names)
    if not below:
        tops = sorted({name.partition(".")[0] for name in names if "." in name})
        raise UserError(f"{label} has no key {key!r}; choose one with --key: {some_of(tops)}")
    start = f"{key}." if key else ""
    places = _marked([name.removeprefix(start) for name in below])
    if not places:
        return start + _usual([name.removeprefix(start) for name in below]), []
    plain = [place for place in places if AVERAGES.isdisjoint(place.split("."))] or places
    chosen = [place for place in plain if _last(place) in PREFERRED] or plain
    if len(chosen) > 1:
        found = ", ".join(_shown(start + place) for place in places)
        raise UserError(
            f"{label} holds weights in several places ({found}); say with --key which to read"
        )
    return start + chosen[0], [start + place for place in places if place != chosen[0]]


def has_marks(names: Collection[str]) -> bool:
    """Whether some names are those of a model that is known by its names."""
    return any(map(MARK.match, names))


def is_random(name: str, kind: str) -> bool:
    """Whether an array of some kind of numbers belongs to a generator of random ones."""
    return kind in "iu" and not RANDOM.isdisjoint(name.split("."))


def is_optimizers(name: str) -> bool:
    """Whether a key says that an array is part of an optimizer's state."""
    return not (OPTIMIZERS | STATES).isdisjoint(name.split("."))


def _marked(names: list[str]) -> list[str]:
    """The places of names that a model has, those in the states of optimizers left out."""
    found = {match[1] for match in map(MARK.match, names) if match}
    tops = {name[: match.end()] for name in names for match in re.finditer(r"\bv_row\.", name)}
    factored = {f"{top.removesuffix('v_row.')}v." for top in tops}
    return sorted(place for place in found - factored if not _is_state(place))


def _is_state(place: str) -> bool:
    keys = place.rstrip(".").split(".")
    return not STATES.isdisjoint(keys) or is_optimizers(place) and keys[-1] not in INSIDE


def _usual(names: list[str]) -> str:
    """The keys that say that weights follow, of names that tell nothing themselves."""
    tops = {name.partition(".")[0] for name in names if not is_optimizers(name)}
    usual = [top for top in USUAL if any(name.startswith(f"{top}.") for name in names)]
    first = next((top for top in usual if top in tops), None)
    if first is None:
        return ""
    inside = [name.removeprefix(f"{first}.") for name in names if name.startswith(f"{first}.")]
    return f"{first}." + _usual(inside)


def _last(place: str) -> str:
    return place.rstrip(".").rpartition(".")[2]


def _shown(place: str) -> str:
    return place.rstrip(".") or "the top"
