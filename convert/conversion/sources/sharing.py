"""Weights that are one in the source and several here: the same function until they are trained."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Sequence

from convert.core.rules import Rule
from convert.core.tensors import Tensors
from transformer_spec import TransformerConfig, trained_names
from transformer_spec.errors import first_of

FROZEN = "; --encoder-positions frozen --decoder-positions frozen train no table of positions"


def sharing_notes(tensors: Tensors, rules: Sequence[Rule], config: TransformerConfig) -> list[str]:
    """What becomes of weights that the source has once; headers only, of tensors that are there."""
    trained = set(trained_names(config))
    return [*_laid_out(tensors, rules, trained), *_in_one_place(tensors, rules, trained)]


def _laid_out(tensors: Tensors, rules: Sequence[Rule], trained: Collection[str]) -> Iterator[str]:
    """Tensors that a rule puts into several weights as a whole."""
    found = dict[str, list[str]]()
    for rule in rules:
        ours = [name for name in rule.targets if name in trained]
        if len(ours) < 2 or len(rule.sources) != 1 or rule.sources[0] not in tensors:
            continue
        shape = tensors[rule.sources[0]].shape
        given = sum(math.prod(s) for s in rule.operation.forward_shapes(shape))
        if given > math.prod(shape):
            found[rule.sources[0]] = ours
    if found:
        shown = first_of([f"{n} ({' and '.join(ours)})" for n, ours in found.items()], "such")
        positions = any("pos_embedding" in name for ours in found.values() for name in ours)
        yield (
            f"one weight there and several here: {', '.join(shown)}: the same function until they "
            f"are trained apart; the way back needs them equal{FROZEN if positions else ''}"
        )


def _in_one_place(
    tensors: Tensors, rules: Sequence[Rule], trained: Collection[str]
) -> Iterator[str]:
    """Tensors whose numbers lie in the file once, and that rules make different weights of."""
    places = dict[Hashable, dict[str, Rule]]()
    for rule in rules:
        there = [name for name in rule.sources if name in tensors]
        for name in there if any(ours in trained for ours in rule.targets) else ():
            if (place := tensors.place(name)) is not None:
                places.setdefault(place, {})[name] = rule
    several = [n for n in places.values() if len({rule.targets for rule in n.values()}) > 1]
    if several:
        shown = first_of([" = ".join(names) for names in several], "such")
        yield (
            f"stored once, and so one weight there: {', '.join(shown)}: several here, the same "
            "function until they are trained apart"
        )
