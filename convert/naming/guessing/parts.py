"""A state dict as parts: weights with their biases, and which number in names is a layer's."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from convert.naming.guessing.words import (
    ATTENTION,
    FFN,
    NORM,
    PLACES,
    half_of,
    has,
    is_bias,
    natural,
    stem_of,
    words_of,
)

Shape = tuple[int, ...]
NUMBER = re.compile(r"\d+")
ODD = 2  # tensors that one layer alone may have
WHOLE_LAYER = 6  # tensors from which on a single number is taken for a layer's


@dataclass(frozen=True)
class Stack:
    """Numbered layers of theirs: what stands before the number, the first one, and how many."""

    before: str
    first: int
    count: int
    tensors: int
    matrices: int

    @property
    def layer(self) -> str:
        """The number in a table's words."""
        return f"{{i+{self.first}}}" if self.first else "{i}"

    def pattern(self, name: str) -> str:
        """One of its names with that in place of the number."""
        return self.before + self.layer + NUMBER.sub("", name[len(self.before) :], count=1)


Patterns = Mapping[str, tuple[Shape, Stack | None]]


@dataclass(frozen=True)
class Part:
    """A weight of theirs with its bias, {i} for its layer; one of the two may be missing.

    ``order`` is its place in the state dict, where numbered neighbours stand by their numbers.
    """

    weight: str | None
    bias: str | None
    shape: Shape
    bias_shape: Shape | None
    order: int = 0
    stack: Stack | None = None

    @property
    def name(self) -> str:
        return self.weight or self.bias or ""

    @cached_property
    def module(self) -> str:
        """The name without its leaf."""
        return self.name.rpartition(".")[0]

    @cached_property
    def path(self) -> str:
        """What stands behind the number of the layer, without a plain leaf."""
        name = self.name if stem_of(self.name.rpartition(".")[2]) else self.module
        return name.split(self.stack.layer, 1)[-1] if self.stack else name

    @property
    def own(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @cached_property
    def axes(self) -> Shape:
        """The lengths that are not 1."""
        return squeezed(self.shape)


def squeezed(shape: Shape) -> Shape:
    """A shape without axes of length 1."""
    return tuple(length for length in shape if length != 1)


def numbered(shapes: Mapping[str, Shape]) -> dict[str, dict[int, dict[str, Shape]]]:
    """Names cut at each of their numbers: what stands before it, the number, what stands behind."""
    found = dict[str, dict[int, dict[str, Shape]]]()
    for name, shape in shapes.items():
        for match in NUMBER.finditer(name):
            there = found.setdefault(name[: match.start()], {})
            there.setdefault(int(match[0]), {})[name[match.end() :]] = shape
    return found


def stacks_of(shapes: Mapping[str, Shape]) -> dict[str, Stack]:
    """The stack of every tensor that lies in a numbered layer."""
    found = numbered(shapes)
    usable = {before: stack for before, n in found.items() if (stack := _stack(before, n))}
    counts = _usual_counts(usable.values())
    result = dict[str, Stack]()
    for name in shapes:
        befores = [name[: match.start()] for match in NUMBER.finditer(name)]
        fitting = [usable[b] for b in befores if b in usable and _common(found[b], name)]
        wanted = [stack for stack in fitting if _is_layers(stack, counts)]
        if wanted:
            result[name] = min(wanted, key=lambda stack: _is_kind(stack.before))
    return result


def _is_layers(stack: Stack, counts: Mapping[str | None, int]) -> bool:
    """Whether what is numbered are layers: large, or as many as its half has."""
    half = half_of(stack.before)
    if stack.tensors >= WHOLE_LAYER:
        return True
    return stack.count == counts.get(half) and (stack.count > 1 or half is not None)


def _is_kind(before: str) -> bool:
    """Whether a number counts the sub-layers of one layer, as in norm1 and attn2."""
    last = words_of(before)[-1:] if not before.endswith(".") else ()
    return any(has(kind, word) for word in last for kind in (NORM, ATTENTION, PLACES[FFN]))


def _stack(before: str, numbered: Mapping[int, Mapping[str, Shape]]) -> Stack | None:
    """What is numbered, where all of it looks alike."""
    numbers = sorted(numbered)
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return None
    common = set.intersection(*(set(layer.items()) for layer in numbered.values()))
    odd = max(len(layer) - len(common) for layer in numbered.values())
    if odd > min(ODD, len(common) - 1):
        return None
    matrices = sum(len(shape) > 1 for _, shape in common)
    return Stack(before, numbers[0], len(numbers), len(common), matrices)


def _common(numbered: Mapping[int, Mapping[str, Shape]], name: str) -> bool:
    """Whether every layer has such a tensor of this shape."""
    rests = {
        name[match.end() :]
        for match in NUMBER.finditer(name)
        if int(match[0]) in numbered and name[match.end() :] in numbered[int(match[0])]
    }
    return any(
        len({layer.get(rest) for layer in numbered.values()}) == 1
        and all(rest in layer for layer in numbered.values())
        for rest in rests
    )


def _usual_counts(stacks: Iterable[Stack]) -> dict[str | None, int]:
    """How many layers a half has: as many as most tensors say."""
    votes = dict[str | None, Counter[int]]()
    for stack in stacks:
        one = votes.setdefault(half_of(stack.before), Counter())
        if stack.count > 1 or stack.tensors >= WHOLE_LAYER:
            one[stack.count] += stack.tensors * stack.count
    return {half: max(v, key=lambda n: (v[n], n), default=0) for half, v in votes.items()}


def parts_of(shapes: Mapping[str, Shape]) -> list[Part]:
    """The parts of a state dict, those of all layers as one."""
    stacks, grouped = stacks_of(shapes), dict[str, list[str]]()
    patterns = dict[str, tuple[Shape, Stack | None]]()
    for name, shape in shapes.items():
        stack = stacks.get(name)
        pattern = stack.pattern(name) if stack else name
        patterns.setdefault(pattern, (shape, stack))
    for pattern in patterns:
        module, _, leaf = pattern.rpartition(".")
        grouped.setdefault(module, []).append(pattern)
    places = _orders(list(patterns))
    pairs = [
        pair
        for names in grouped.values()
        for group in _groups(names, patterns)
        for pair in _pairs(group)
    ]
    return sorted((_part(pair, patterns, places) for pair in pairs), key=lambda part: part.order)


def _groups(names: list[str], patterns: Patterns) -> list[list[str]]:
    """The tensors of a module by what belongs together: a weight and its bias."""
    if len(names) == 2 and _belong(*(patterns[name][0] for name in names)):
        return [names]
    stems = dict[str, list[str]]()
    for name in names:
        stems.setdefault(stem_of(name.rpartition(".")[2]), []).append(name)
    return list(stems.values())


def _belong(one: Shape, other: Shape) -> bool:
    """Whether two shapes can be a weight's and its bias's."""
    longer, shorter = sorted(map(squeezed, (one, other)), key=len, reverse=True)
    if len(longer) < 2:
        return longer == shorter
    return len(shorter) < len(longer) and set(shorter) <= set(longer)


def _pairs(group: list[str]) -> Iterable[tuple[str | None, str | None]]:
    """A weight and a bias where there is one of each; else every tensor is a part of its own."""
    biases = [name for name in group if is_bias(name.rpartition(".")[2])]
    weights = [name for name in group if name not in biases]
    if len(group) == 2:
        return [(weights[0], biases[0]) if weights and biases else (group[0], group[1])]
    return [(name, None) for name in weights] + [(None, name) for name in biases]


def _part(
    names: tuple[str | None, str | None],
    patterns: Patterns,
    places: Mapping[str, int],
) -> Part:
    weight, bias = names
    if weight and bias and len(patterns[bias][0]) > len(patterns[weight][0]):
        weight, bias = bias, weight
    first = weight or bias or ""
    shape, stack = patterns[first]
    return Part(weight, bias, shape, patterns[bias][0] if bias else None, places[first], stack)


def _orders(names: list[str]) -> dict[str, int]:
    """The places of names, with those that differ in a number alone sorted by it."""
    alike = dict[str, list[int]]()
    for place, name in enumerate(names):
        alike.setdefault(NUMBER.sub("#", name), []).append(place)
    found = dict[str, int]()
    for places in alike.values():
        by_number = sorted((names[place] for place in places), key=natural)
        found |= dict(zip(by_number, places, strict=True))
    return found
