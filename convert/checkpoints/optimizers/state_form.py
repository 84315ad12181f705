"""The form of an optimizer's state in a file: checked as a whole, its numbers read.

Anything can lie there that pickles hold. What follows this check finds lists where lists belong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert.checkpoints.optimizers.adam import FIRST_KEY, SECOND_KEY, STEP_KEY
from convert.core.pipeline import is_float
from convert.formats.content import ContentFile, Leaf, Unread, is_array, some_of
from transformer_spec import Faults

RATES, BETAS = ("lr", "eps", "weight_decay"), "betas"
MOST_STEPS = 2**31  # a step is an int32 in optax
SCALARS = (bool, int, float, str, type(None))


def check_form(content: Mapping[str, Any], label: str) -> None:
    """A UserError with all that is no state of parameters in groups, whatever optimizer's it is."""
    faults, state, groups = Faults(), content["state"], content["param_groups"]
    faults.require(isinstance(state, Mapping), f"its state is {_kind(state)}, no dict")
    listed = isinstance(groups, (list, tuple)) and all(isinstance(g, Mapping) for g in groups)
    faults.require(listed, "its param_groups are no list of dicts")
    for number, group in enumerate(groups if listed else ()):
        _check_group(group, f"group {number}", faults)
    if not faults.messages:
        counts = Counter(index for group in groups for index in group["params"])
        twice = [str(index) for index, count in counts.items() if count > 1]
        faults.require(not twice, f"groups have {some_of(twice)} more than once")
        strange = [str(index) for index in state if index not in counts]
        faults.require(not strange, f"no group has {some_of(strange)}, and its state is there")
    faults.raise_if_any(f"{label} is no state of an optimizer")


def _check_group(group: Mapping[str, Any], place: str, faults: Faults) -> None:
    params, names = group.get("params"), group.get("param_names", [])
    listed = isinstance(params, (list, tuple)) and all(type(x) in (int, str) for x in params)
    faults.require(listed, f"{place} has no list of numbers as params")
    named = isinstance(names, (list, tuple)) and all(type(x) is str for x in names)
    faults.require(named, f"{place} has param_names that are no list of names")


def read_numbers(
    content: Mapping[str, Any], file: ContentFile, label: str
) -> tuple[dict[str, Any], list[str]]:
    """An Adam's state with steps and settings as plain numbers, and the settings left out.

    Settings that are neither numbers nor texts are left out. A UserError names every step and
    setting that is no number, and moments that are no arrays of floats of one shape.
    """
    faults, state, groups = Faults(), dict[Any, Any](), list[dict[str, Any]]()
    for index, entry in content["state"].items():
        _check_moments(entry, f"parameter {index}", faults)
        step = _number(entry[STEP_KEY], file)
        if step is None or step != step // 1 or not 0 <= step < MOST_STEPS:
            told = f"parameter {index} has as step {_shown(entry[STEP_KEY], step)}"
            faults.add(f"{told}, no number of steps", "have no number of steps")
        state[index] = {**entry, STEP_KEY: step}
    for number, group in enumerate(content["param_groups"]):
        groups.append({key: _plain(value, file) for key, value in group.items()})
        _check_settings(groups[-1], f"group {number}", faults)
    faults.raise_if_any(f"{label} is not read")
    odd = {str(k) for g in groups for k, x in g.items() if not (type(k) is str and _is_plain(x))}
    kept = [{key: value for key, value in group.items() if key not in odd} for group in groups]
    return {"state": state, "param_groups": kept}, sorted(odd)


def _check_moments(entry: Mapping[str, Any], place: str, faults: Faults) -> None:
    first, second = moments = entry[FIRST_KEY], entry[SECOND_KEY]
    for key, moment in zip((FIRST_KEY, SECOND_KEY), moments, strict=True):
        if not is_array(moment):
            faults.add(f"{place} has {_kind(moment)} as {key}, no array", "have no arrays")
        elif not is_float(moment.dtype):
            kind = f"{place} has {key} of {moment.dtype}, no floating-point numbers"
            faults.add(kind, "have no floating-point numbers")
    if is_array(first) and is_array(second) and first.shape != second.shape:
        shapes = f"{FIRST_KEY} of {list(first.shape)} and {SECOND_KEY} of {list(second.shape)}"
        faults.add(f"{place} has {shapes}", "have moments of two shapes")


def _check_settings(group: Mapping[str, Any], place: str, faults: Faults) -> None:
    for key in RATES:
        value = group.get(key, 0.0)
        faults.require(_is_number(value), f"{place} has as {key} {_shown(value)}, no number")
    betas = group.get(BETAS, (0.0, 0.0))
    paired = isinstance(betas, (list, tuple)) and len(betas) == 2 and all(map(_is_number, betas))
    faults.require(paired, f"{place} has as {BETAS} {_shown(betas)}, no two numbers")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(_as_float(value))


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _number(value: Any, file: ContentFile) -> float | None:
    """A number, or the one of an array, of whatever shape: newer versions keep steps so."""
    if type(value) in (int, float):
        return _as_float(value)
    if not is_array(value) or math.prod(value.shape) != 1:
        return None
    if value.dtype.kind not in "iu" and not is_float(value.dtype):
        return None
    array = file.read(value) if isinstance(value, Leaf) else value
    return float(np.reshape(array, ()))


def _plain(value: Any, file: ContentFile, inside: bool = False) -> Any:
    """A setting with numbers in the place of arrays of one; what is none stays as it is."""
    if is_array(value):
        number = _number(value, file)
        return value if number is None else number
    if isinstance(value, (list, tuple)) and not inside:
        return type(value)(_plain(part, file, inside=True) for part in value)
    return value


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return type(value) in SCALARS


def _kind(value: Any) -> str:
    return repr(value) if isinstance(value, Unread) or value is None else type(value).__name__


def _shown(value: Any, number: float | None = None) -> str:
    """A value for a message: its number, or its kind and shape."""
    if number is not None:
        return f"{number:g}"
    if is_array(value):
        return f"an array of {value.dtype} {list(value.shape)}"
    return repr(value) if type(value) in (int, float) else _kind(value)
