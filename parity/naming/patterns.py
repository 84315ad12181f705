"""Names of tensors as patterns: the number of a layer apart, those of a module together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from convert.naming.guessing.parts import NUMBER, Shape, numbered, squeezed

# A stack of layers has at least so many matrices in each.
MATRICES = 4


@dataclass(frozen=True)
class Pattern:
    """A tensor of every layer of a stack, or one outside layers.

    ``text`` has {i} (or {i+1}) for the layer, ``stack`` is what stands before it.
    """

    text: str
    shape: Shape
    names: tuple[str, ...]
    stack: str | None = None

    @property
    def module(self) -> str:
        return self.text.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        return self.text.rpartition(".")[2]

    @property
    def squeezed(self) -> Shape:
        """The shape without axes of length 1."""
        return squeezed(self.shape)


def patterns_of(shapes: Mapping[str, Shape]) -> list[Pattern]:
    """Every name in its pattern, in the order in which they come."""
    stacks = _stacks(shapes)
    groups = defaultdict[tuple[str, str | None], list[str]](list)
    for name in shapes:
        prefix = next((p for p in sorted(stacks, key=len) if _follows(name, p)), None)
        groups[_pattern(name, prefix, stacks), prefix].append(name)
    return [
        Pattern(text, shapes[names[0]], tuple(sorted(names, key=_numbers)), stack)
        for (text, stack), names in groups.items()
    ]


def _follows(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and bool(NUMBER.match(name, len(prefix)))


def _pattern(name: str, prefix: str | None, stacks: Mapping[str, int]) -> str:
    if prefix is None:
        return name
    first = stacks[prefix]
    end = NUMBER.match(name, len(prefix))
    assert end is not None
    layer = f"{{i+{first}}}" if first else "{i}"
    return f"{prefix}{layer}{name[end.end() :]}"


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in NUMBER.findall(name))


def _stacks(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """What stands before the number of a layer, and the first number there."""
    return {p: min(layers) for p, layers in numbered(shapes).items() if _are_layers(layers)}


def _are_layers(layers: Mapping[int, Mapping[str, Shape]]) -> bool:
    """Whether numbers count from 0 or 1 and all hold the same tensors, enough for a layer."""
    first, *_ = layers.values()
    counted = sorted(layers) in ([*range(len(layers))], [*range(1, len(layers) + 1)])
    matrices = sum(len(shape) > 1 for shape in first.values())
    return counted and matrices >= MATRICES and all(one == first for one in layers.values())


@dataclass(frozen=True)
class Unit:
    """A module of theirs: a matrix with its bias, or the one or two vectors of a norm."""

    weight: Pattern
    bias: Pattern | None = None
    is_norm: bool = field(default=False, kw_only=True)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    @property
    def label(self) -> str:
        return self.weight.module or self.weight.text

    @property
    def stack(self) -> str | None:
        return self.weight.stack


def units_of(patterns: list[Pattern]) -> list[Unit]:
    """Patterns as modules: those with one name but for its last part."""
    groups = defaultdict[str, list[Pattern]](list)
    for pattern in patterns:
        groups[pattern.module if pattern.module else pattern.text].append(pattern)
    return [unit for group in groups.values() for unit in _units(group)]


def _units(group: list[Pattern]) -> list[Unit]:
    """A matrix and its bias, a norm's vectors, or several that only their stems tell apart."""
    # Kernels of heads have biases of two axes, one less than they have themselves.
    deepest = max(len(pattern.squeezed) for pattern in group)
    weights = [p for p in group if len(p.squeezed) == deepest and deepest > 1]
    vectors = [p for p in group if p not in weights]
    if not weights and len(vectors) <= 2:
        return [Unit(vectors[0], *vectors[1:], is_norm=True)]
    if len(weights) == 1 and len(vectors) <= 1:
        return [Unit(weights[0], *vectors)]
    found = list[Unit]()
    for weight in weights:
        bias = next((v for v in vectors if _stem(v) == _stem(weight)), None)
        vectors = [v for v in vectors if v is not bias]
        found.append(Unit(weight, bias))
    return found + [Unit(vector, is_norm=True) for vector in vectors]


def _stem(pattern: Pattern) -> str:
    return pattern.text.rpartition("_")[0]
