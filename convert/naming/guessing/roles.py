"""Parts laid onto our names: by shape, by words, and what is left by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from convert.naming.guessing.assignment import IMPOSSIBLE, assign
from convert.naming.guessing.parts import Part

ORDER = 0.01  # what the square of a distance in the order weighs beside words
Scores = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Role:
    """A part and the modules of ours that it is; ``layout`` is None where ours is meant.

    ``scores`` say how well words fit every place that was open, ``column`` is the one it got.
    """

    part: Part
    ours: tuple[str, ...]
    layout: str | None = None
    scores: tuple[float, ...] = ()
    column: int = 0

    def loss(self, other: Role) -> float:
        """What words lose where two roles are exchanged."""
        kept = self.scores[self.column] + other.scores[other.column]
        return kept - self.scores[other.column] - other.scores[self.column]

    def is_like(self, other: Role) -> bool:
        """Whether shapes allow an exchange."""
        return self.part.shape == other.part.shape and len(self.ours) == len(other.ours)


@dataclass
class Roles:
    """What parts are, which are left over and what is missing.

    ``alike`` are roles of one shape that words do not tell apart, ``told`` those that they do.
    """

    roles: list[Role] = field(default_factory=list)
    left: list[Part] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    alike: list[list[Role]] = field(default_factory=list)
    told: list[list[Role]] = field(default_factory=list)

    def add(self, other: Roles) -> None:
        """Take in what another collection says."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine.extend(theirs)

    def become(self, ours: Mapping[str, tuple[str, ...]]) -> None:
        """Let roles, by the names of their parts, be others of ours."""

        def of(roles: list[Role]) -> list[Role]:
            return [replace(role, ours=ours.get(role.part.name, role.ours)) for role in roles]

        self.roles = of(self.roles)
        self.alike, self.told = list(map(of, self.alike)), list(map(of, self.told))


def fill(
    places: Sequence[tuple[str, ...]],
    parts: Sequence[Part],
    words: Scores,
    layouts: Sequence[Sequence[str | None]],
    left_out: float = -100.0,
) -> Roles:
    """The best places for parts, which stand in their order.

    ``words`` and ``layouts`` have a row for each part: how well words fit a place, and with which
    layout its shape does ("" where ours is meant, None where it does not).
    """
    chosen, result = assign(_with_order(words, layouts), left_out), Roles()
    for row, column in enumerate(chosen):
        if column is None:
            result.left.append(parts[row])
        else:
            layout = layouts[row][column] or None
            role = Role(parts[row], places[column], layout, tuple(words[row]), column)
            result.roles.append(role)
    free = [place for at, place in enumerate(places) if at not in chosen]
    result.missing += [name for place in free for name in place]
    result.alike = groups(result.roles, untold=True)
    result.told = [one for one in groups(result.roles, untold=False) if one not in result.alike]
    return result


def _with_order(words: Scores, layouts: Sequence[Sequence[str | None]]) -> list[list[float]]:
    return [
        [
            IMPOSSIBLE if layouts[row][column] is None else score - ORDER * (row - column) ** 2
            for column, score in enumerate(scores)
        ]
        for row, scores in enumerate(words)
    ]


def groups(roles: Sequence[Role], untold: bool) -> list[list[Role]]:
    """Roles that shapes let exchange; with ``untold`` only where words lose nothing by it."""
    found = [{at} for at in range(len(roles))]
    for a, b in combinations(range(len(roles)), 2):
        one, other = roles[a], roles[b]
        if one.is_like(other) and not (untold and one.loss(other) > 0):
            joined = found[a] | found[b]
            for at in joined:
                found[at] = joined
    distinct = {min(group): sorted(group) for group in found if len(group) > 1}
    return [[roles[at] for at in group] for group in distinct.values()]
