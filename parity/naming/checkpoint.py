"""A checkpoint and the function that makes its module, as the search takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from convert.checkpoints.folders.location import locate
from convert.checkpoints.reading import open_content
from convert.checkpoints.states.wrappers import unwrap
from convert.core.pipeline import is_float
from parity.naming.search import Found, search
from parity.naming.subject import Subject, TreeSubject, subject_of
from parity.sides.given import MODULE
from parity.sides.own_code import made_by


def search_checkpoint(
    path: Path,
    given: str,
    key: str | None = None,
    heads: int | None = None,
    pad_id: int | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Found:
    """The table of a checkpoint's names; ``given`` is module:FILE.py:FUNCTION."""
    say("reading")
    weights = read_weights(path, key)
    made = made_by(given, given.removeprefix(MODULE))
    subject = subject_of(given, made.model, made.params)
    if isinstance(subject, TreeSubject):
        subject.without_prefix(weights)
    return search(_of_module(weights, subject), subject, str(path), heads, pad_id, say)


def read_weights(path: Path, key: str | None) -> dict[str, np.ndarray]:
    """The floating tensors of a checkpoint, under the names that lie there."""
    content = open_content(locate(path).weights, key)
    names = content.layout.weight_names(content.tensors)
    return {n: content.tensors.read(n) for n in names if is_float(content.tensors[n].dtype)}


def _of_module(weights: dict[str, np.ndarray], subject: Subject) -> dict[str, np.ndarray]:
    """Without what a wrapper around the module added to its names, where that makes them one."""
    taken_off = unwrap(weights, None).names
    plain = {name: weights[old] for name, old in taken_off.items()}
    plain |= {name: array for name, array in weights.items() if name not in taken_off.values()}
    return plain if plain.keys() == subject.shapes.keys() else weights
