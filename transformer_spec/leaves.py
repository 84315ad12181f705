"""The leaf table: how the last part of a weight's name differs between the twins.

Everything before the last dot is the same on both sides. This is the only place that knows that
a PyTorch ``weight`` is a Flax ``kernel``, ``embedding`` or ``scale``, and which is transposed.
"""

import re
from typing import NamedTuple

import numpy as np

from transformer_spec.errors import UserError


class Leaf(NamedTuple):
    """One row: modules whose last name matches, torch leaf <-> flax leaf, transposed or not."""

    module: str
    torch: str
    flax: str
    transposed: bool


LEAVES = (
    Leaf(r"(pos_)?embedding|relative_bias", "weight", "embedding", False),
    Leaf(r"layerNorm\d+|final_norm|embedding_norm", "weight", "scale", False),
    Leaf(r"fc[A-Za-z0-9]+|finalFc|conv\d+", "weight", "kernel", True),
    Leaf(
        r"layerNorm\d+|final_norm|embedding_norm|fc[A-Za-z0-9]+|finalFc|conv\d+",
        "bias",
        "bias",
        False,
    ),
)


def _find(name: str, side: str) -> tuple[str, Leaf]:
    path, _, leaf = name.rpartition(".")
    module = path.rpartition(".")[2]
    for row in LEAVES:
        if getattr(row, side) == leaf and re.fullmatch(row.module, module):
            return path, row
    known = sorted({getattr(row, side) for row in LEAVES})
    raise UserError(f"{name!r} is no {side} weight name; the last part must be one of {known}")


def leaf_kind(name: str) -> str:
    """The Flax leaf of a canonical name: kernel, embedding, scale or bias."""
    return _find(name, "torch")[1].flax


def flax_name(name: str) -> str:
    """The Flax name of a canonical (PyTorch) name; a name that ends as none does is a UserError."""
    path, row = _find(name, "torch")
    return f"{path}.{row.flax}"


def canonical_name(name: str) -> str:
    """The canonical (PyTorch) name of a Flax name; a name that ends as none does is a UserError."""
    path, row = _find(name, "flax")
    return f"{path}.{row.torch}"


def to_flax(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """A canonical weight as the Flax twin holds it; a transposed array, its axes in reversed order,
    is a view.
    """
    path, row = _find(name, "torch")
    return f"{path}.{row.flax}", array.T if row.transposed else array


def to_torch(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """A Flax weight as the PyTorch twin holds it: the same table read from the other side."""
    path, row = _find(name, "flax")
    return f"{path}.{row.torch}", array.T if row.transposed else array
