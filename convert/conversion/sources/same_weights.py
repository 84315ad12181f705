"""Two files of one folder that should hold the same weights: compared byte by byte."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convert.core.tensors import Tensors, as_bytes
from transformer_spec import Faults

DIFFER = "differ"
Weights = tuple[Path, Tensors]


def check_same(one: Weights, other: Weights, names: Mapping[str, str]) -> None:
    """A UserError that lists what differs, under the ``names`` that weights have in their files."""
    (first, ours), (second, theirs) = one, other
    faults = Faults()
    for name in dict.fromkeys((*ours, *theirs)):
        told = names.get(name, name)  # several weights may be one there
        difference = _difference(ours, theirs, name)
        if difference and f"{told} {difference}" not in faults.messages:
            faults.add(f"{told} {difference}", DIFFER)
    faults.raise_if_any(
        f"{first} and {second} do not hold the same weights",
        advice="name the file that is to be read",
    )


def _difference(ours: Tensors, theirs: Tensors, name: str) -> str:
    """In what a weight of two files differs; nothing where it does not."""
    if name not in ours or name not in theirs:
        return "is in one of them alone"
    if ours[name] != theirs[name]:
        return f"is {ours[name]} and {theirs[name]}"
    same = np.array_equal(as_bytes(ours.read(name)), as_bytes(theirs.read(name)))
    return "" if same else "has other numbers"
