"""Published modules whose names say nothing: words replaced, siblings of one shape exchanged."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from parity.naming.patterns import patterns_of
from parity.naming.subject import Subject

LETTERS = "bcdfghjklmnpqrstvwxz"


class Shuffled(Subject):
    """A subject under other names."""

    def __init__(self, inner: Subject, seed: int) -> None:
        super().__init__(inner.given)
        self.inner, self.old = inner, shuffled(inner.shapes, seed)
        self.shapes = {new: inner.shapes[old] for new, old in self.old.items()}
        self.trained = frozenset(new for new, old in self.old.items() if old in inner.trained)
        self.held = {new: inner.held[old] for new, old in self.old.items()}

    def compute(self, weights, ids):
        return self.inner.compute({self.old[name]: array for name, array in weights.items()}, ids)


def shuffled(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, str]:
    """New name -> name, in random order: only the numbers of layers are left."""
    draw, words, numbers = np.random.default_rng(seed), {}, defaultdict(dict)
    patterns = [(name, p.text) for p in patterns_of(shapes) for name in p.names]
    parts = {text: text.split(".") for _, text in patterns}
    for text in parts.values():
        for at, part in enumerate(text):
            if part.isdecimal():
                numbers[".".join(text[:at])].setdefault(part, None)
    for siblings in numbers.values():
        siblings.update(zip(list(siblings), map(str, draw.permutation(len(siblings))), strict=True))

    def renamed(name: str, text: str) -> str:
        layer = re.fullmatch(re.sub(r"\\{i(\\\+\d)?\\}", r"(\\d+)", re.escape(text)), name)
        found = []
        for at, part in enumerate(parts[text]):
            if part.isdecimal():
                found.append(numbers[".".join(parts[text][:at])][part])
            elif "{i" in part:
                assert layer is not None
                stem = part.partition("{")[0]
                found.append((word(stem) if stem else "") + layer[1])
            else:
                found.append(word(part))
        return ".".join(found)

    def word(part: str) -> str:
        if part not in words:
            words[part] = "".join(draw.choice(list(LETTERS), 4)) + LETTERS[len(words) % 20]
        return words[part]

    names = {renamed(name, text): name for name, text in patterns}
    assert len(names) == len(shapes)
    return {new: names[new] for new in draw.permutation(list(names)).tolist()}
