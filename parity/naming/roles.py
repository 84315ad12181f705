"""The roles of a module's tensors, found by probes: no setting of the model has to be known."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from parity.naming.patterns import Pattern, Unit, units_of
from parity.naming.probes import (
    LONG,
    LONG_SOURCE,
    LONG_TARGET,
    NOTHING,
    ONE,
    Names,
    Probes,
    Rows,
    apart,
    names_of,
)
from transformer_spec import Faults

SOURCE, TARGET, OUTPUT = "encoder.embedding", "decoder.embedding", "decoder.finalFc"
ROWS = 8  # of a table of positions that are tried
VALUES = 2  # matrices after an attention's softmax: values and output


@dataclass
class Attention:
    """Modules of one attention: those before the softmax, and those after it, order unknown."""

    scores: list[Unit] = field(default_factory=list)
    values: list[Unit] = field(default_factory=list)

    @property
    def units(self) -> list[Unit]:
        return self.scores + self.values


@dataclass
class Half:
    """What is known of a half; ``norms`` are those of its layers, one for each sub-layer."""

    attentions: list[Attention] = field(default_factory=list)
    ffn: list[Unit] = field(default_factory=list)
    norms: list[Unit] = field(default_factory=list)
    embedding_norm: Unit | None = None
    final_norm: Unit | None = None


@dataclass
class Roles:
    """What every tensor is, as far as probes tell.

    ``tables`` say of a table whose it is, ``axes`` which of its axes are rows; ``positions`` map a
    half to its stored table.
    """

    width: int = 0
    tables: dict[str, list[str]] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)
    positions: dict[str, str] = field(default_factory=dict)
    offset: int = 0
    output_bias: str | None = None
    encoder: Half = field(default_factory=Half)
    decoder: Half = field(default_factory=Half)
    norm_position: str = "post"
    scales: dict[str, int] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def table(self, role: str) -> str | None:
        return next((text for text, roles in self.tables.items() if role in roles), None)


class RoleFinder:
    """Finds roles by probes, from tables to norms; what has no role is a fault."""

    def __init__(self, probes: Probes) -> None:
        self.probes, self.roles, self.faults = probes, Roles(width=probes.width), Faults()
        patterns = list(probes.patterns.values())
        self.flat = [p for p in patterns if p.stack is None]
        self.layered = units_of([p for p in patterns if p.stack is not None])
        self.matrices = [unit for unit in self.layered if not unit.is_norm]
        self.everything = names_of(self.matrices)

    def find(self) -> Roles:
        self._tables()
        self._outside_layers()
        stack = self._halves()
        self.faults.raise_if_any("no encoder-decoder of this kind")
        self._decoder(stack)
        self._encoder(stack)
        self._norms(stack)
        self.faults.raise_if_any("no encoder-decoder of this kind")
        return self.roles

    # Tables.

    def _tables(self) -> None:
        for pattern in [p for p in self.flat if len(p.squeezed) == 2]:
            axes = [axis for axis in (0, 1) if pattern.squeezed[1 - axis] == self.roles.width]
            found = next((r for r in ((a, self._roles_of(pattern, a)) for a in axes) if r[1]), None)
            if found is None and self.probes.matters([pattern.text]):
                self.faults.add(f"{pattern.text} {list(pattern.shape)} has no role")
            elif found is None:
                self.roles.unused.append(pattern.text)
            else:
                self._take(pattern, *found)
        for role in (SOURCE, TARGET, OUTPUT):
            self.faults.require(self.roles.table(role) is not None, f"no tensor is {role}")

    def _take(self, pattern: Pattern, axis: int, roles: list[str]) -> None:
        self.roles.axes[pattern.text] = axis
        halves = [role for role in roles if role in ("encoder", "decoder")]
        self.roles.positions.update(dict.fromkeys(halves, pattern.text))
        if not halves:
            self.roles.tables[pattern.text] = roles

    def _roles_of(self, pattern: Pattern, axis: int) -> list[str]:
        """What a table's rows are looked up by."""
        probes, text, long = self.probes, pattern.text, self.probes.ids(LONG)
        used = [sorted({int(n) for n in part.flat}) for part in long]
        unused = tuple(t for t in probes.tokens if t not in used[0] + used[1])
        found = list[str]()
        for role, tokens in ((SOURCE, used[0]), (TARGET, used[1])):
            row = Rows(axis, tuple(tokens[-1:]))
            if probes.row_matters(text, row, LONG) and not probes.row_matters(
                text, row, LONG, there=False
            ):
                found.append(role)
        spare = unused or tuple(used[0])
        if pattern.squeezed[axis] > spare[0] and probes.own_column(
            text, Rows(axis, spare[:1]), LONG
        ):
            found.append(OUTPUT)
        halves = self._positions(pattern, axis)
        return halves or found

    def _positions(self, pattern: Pattern, axis: int) -> list[str]:
        """The halves whose positions look rows up: a longer text takes more of them."""
        first = range(min(ROWS, pattern.squeezed[axis]))
        alive = {
            shape: [
                n
                for n in first
                if self.probes.row_matters(pattern.text, Rows(axis, (n,)), shape, there=False)
            ]
            for shape in (LONG_SOURCE, LONG_TARGET)
        }
        halves = [
            half
            for half, shape, length in (
                ("encoder", LONG_SOURCE, LONG_SOURCE[0]),
                ("decoder", LONG_TARGET, LONG_TARGET[1]),
            )
            if len(alive[shape]) >= length
        ]
        if halves:
            self.roles.offset = min(min(rows) for rows in alive.values() if rows)
        return halves

    def _outside_layers(self) -> None:
        """The output's bias, and what changes nothing."""
        logits = self.probes.logits(LONG)
        for pattern in [p for p in self.flat if len(p.squeezed) < 2]:
            text = pattern.text
            if not self.probes.matters([text]):
                self.roles.unused.append(text)
            elif pattern.squeezed == logits.shape[-1:] and self._is_output_bias(pattern):
                self.roles.output_bias = text
        for unit in self.layered:
            idle = [p.text for p in unit.patterns if p.stack and not self.probes.matters([p.text])]
            if unit.weight.text in idle:
                self.roles.unused += idle
        gone = {*self.roles.unused}
        self.layered = [unit for unit in self.layered if unit.weight.text not in gone]
        self.matrices = [unit for unit in self.layered if not unit.is_norm]
        self.everything = names_of(self.matrices)

    def _is_output_bias(self, pattern: Pattern) -> bool:
        """Whether logits change by what the vector changes by."""
        other = frozenset([pattern.text])
        moved = self.probes.logits(LONG, NOTHING, other) - self.probes.logits(LONG)
        wanted = self.probes.array(pattern, 1) - self.probes.array(pattern)
        return bool(abs(moved - wanted.reshape(-1)).max() < 1e-9)

    # Halves.

    def _halves(self) -> str | None:
        """The decoder's stack; cross-attention is what the source is heard through."""
        killers = [u for u in self.matrices if not self.probes.hears_source(names_of([u]))]
        stacks = {unit.stack for unit in killers}
        told = "no matrix of a layer silences the source: there is no cross-attention"
        self.faults.require(bool(killers), told)
        listed = ", ".join(unit.label for unit in killers)
        self.faults.require(len(stacks) < 2, f"the source is heard through {listed}, of two stacks")
        if len(stacks) != 1:
            return None
        (stack,) = stacks
        self.silent = names_of(killers)
        mine = [u for u in self.matrices if u.stack == stack]
        cross = [u for u in mine if not self.probes.matters(names_of([u]), LONG, self.silent)]
        scores = [u for u in cross if u not in killers]
        self.roles.decoder.attentions = [Attention(), Attention(scores, killers)]
        return stack

    def _decoder(self, stack: str | None) -> None:
        half, probes = self.roles.decoder, self.probes
        cross = half.attentions[1].units
        rest = [u for u in self.matrices if u.stack == stack and u not in cross]
        attention = half.attentions[0]
        for unit in rest:
            if not probes.matters(names_of([unit]), ONE):
                attention.scores.append(unit)
            elif not probes.mixes_target(names_of([unit])):
                attention.values.append(unit)
            else:
                half.ffn.append(unit)
        self._check_sublayers("decoder", half)

    def _encoder(self, stack: str | None) -> None:
        half, probes, attention = self.roles.encoder, self.probes, Attention()
        alive = list[Unit]()
        for unit in [u for u in self.matrices if u.stack != stack]:
            dead = not probes.matters(names_of([unit]), ONE)
            (attention.scores if dead else alive).append(unit)
        shapes = [frozenset(u.weight.squeezed) for u in self.roles.decoder.ffn]
        half.ffn = [u for u in alive if frozenset(u.weight.squeezed) in shapes]
        if len(alive) - len(half.ffn) != VALUES:  # values have a shape of the feed-forward
            linear = self._linear_pair(alive, shapes)
            half.ffn = [u for u in alive if u not in linear]
        attention.values = [u for u in alive if u not in half.ffn]
        half.attentions = [attention]
        if self.matrices and alive:
            self._check_sublayers("encoder", half)

    def _linear_pair(
        self, alive: Sequence[Unit], shapes: Sequence[frozenset[int]]
    ) -> tuple[Unit, ...]:
        """Values and output: with the sign of both turned, they give what they gave.

        So do two matrices of a gated feed-forward; the rest must have the feed-forward's shapes.
        """
        for one, other in itertools.permutations(alive, VALUES):
            rest = [frozenset(u.weight.squeezed) for u in alive if u not in (one, other)]
            minus = names_of([one]) | {other.weight.text}
            if Counter(rest) == Counter(shapes) and not apart(
                self.probes.logits(ONE), self.probes.logits(ONE, minus=minus)
            ):
                return one, other
        return tuple(alive[:VALUES])

    def _check_sublayers(self, name: str, half: Half) -> None:
        for attention in half.attentions:
            found = (len(attention.scores), len(attention.values))
            listed = ", ".join(u.label for u in attention.units)
            usable = found in ((2, 2), (1, 2), (0, 2))
            told = f"an attention of the {name} has {sum(found)} matrices: {listed or 'none'}"
            self.faults.require(usable, told)
        listed = ", ".join(u.label for u in half.ffn)
        self.faults.require(
            len(half.ffn) in (2, 3),
            f"the {name}'s feed-forward has {len(half.ffn)} matrices: {listed or 'none'}",
        )

    # Norms.

    def _norms(self, stack: str | None) -> None:
        probes, norms = self.probes, [u for u in self.layered if u.is_norm]
        mine = [u for u in norms if u.stack == stack]
        theirs = [u for u in norms if u.stack != stack]
        alive = [u for u in mine if probes.matters(names_of([u]), LONG, self.everything)]
        self.roles.norm_position = "post" if alive else "pre"
        self._half_norms()
        cross = names_of(self.roles.decoder.attentions[1].units)
        for half, units in ((self.roles.encoder, theirs), (self.roles.decoder, mine)):
            heard = cross if half is self.roles.encoder else NOTHING
            half.norms = self._in_order(half, units, heard)
        self._scales(norms)

    def _in_order(self, half: Half, units: list[Unit], heard: Names) -> list[Unit]:
        """The norms of a layer as its sub-layers come."""
        sublayers = [names_of(a.units) for a in half.attentions] + [names_of(half.ffn)]
        if len(units) != len(sublayers):
            listed = ", ".join(u.label for u in units)
            self.faults.add(f"{len(units)} norms for {len(sublayers)} sub-layers: {listed}")
            return units
        if self.roles.norm_position == "post":
            off = self.everything - heard
            before = {u: sum(self._silences(v, u, off) for v in units if v is not u) for u in units}
            return sorted(units, key=lambda u: -before[u])
        found = list[Unit]()
        for sublayer in sublayers:
            off = self.everything - sublayer - heard
            alive = [u for u in units if self.probes.matters(names_of([u]), LONG, off)]
            alive = [u for u in alive if not self._of_cross(u, sublayer, heard)]
            found += [u for u in alive if u not in found][:1]
        return found + [u for u in units if u not in found]

    def _of_cross(self, unit: Unit, sublayer: Names, heard: Names) -> bool:
        """Whether a norm is heard without the sub-layer too: cross-attention's own."""
        off = self.everything - heard
        return bool(heard - sublayer) and self.probes.matters(names_of([unit]), LONG, off)

    def _silences(self, one: Unit, other: Unit, off: Names) -> bool:
        """Whether ``other`` is not heard where ``one`` gives zeros: it comes before."""
        return not self.probes.matters(names_of([other]), LONG, off | names_of([one]))

    def _half_norms(self) -> None:
        flat = [p for p in self.flat if p.text not in self.roles.unused and len(p.squeezed) < 2]
        units = units_of([p for p in flat if p.text != self.roles.output_bias])
        units = [u for u in units if self.roles.output_bias not in [p.text for p in u.patterns]]
        for unit in units:
            of_decoder = self.probes.matters(names_of([unit]), LONG, self.silent)
            half = self.roles.decoder if of_decoder else self.roles.encoder
            zero = names_of([unit])
            layers = names_of(half.ffn + half.attentions[0].units)
            final = not layers or not self.probes.matters(layers, LONG, zero)
            place = "final_norm" if final else "embedding_norm"
            if getattr(half, place) is not None:
                self.faults.add(f"{getattr(half, place).label} and {unit.label} are {place}")
            setattr(half, place, unit)

    def _scales(self, norms: list[Unit]) -> None:
        """Which vector of a norm is the scale: zeros there silence the target."""
        roles, off = self.roles, self.everything
        seen = [roles.decoder.final_norm, roles.decoder.embedding_norm]
        seen += roles.decoder.norms if roles.norm_position == "post" else []
        for unit in [u for u in seen if u is not None and u.bias is not None]:
            deaf = [not self.probes.hears_target(off | {p.text}) for p in unit.patterns]
            if deaf in ([True, False], [False, True]):
                self.roles.scales[unit.label] = deaf.index(True)
        by_leaf = {
            unit.patterns[self.roles.scales[unit.label]].leaf
            for unit in seen
            if unit is not None and unit.label in self.roles.scales
        }
        halves = (roles.encoder, roles.decoder)
        others = [h.final_norm for h in halves] + [h.embedding_norm for h in halves]
        for unit in [*norms, *(u for u in others if u is not None)]:
            leaves = [p.leaf for p in unit.patterns]
            known = [k for k, leaf in enumerate(leaves) if leaf in by_leaf]
            if unit.label not in self.roles.scales and len(known) == 1:
                self.roles.scales[unit.label] = known[0]
