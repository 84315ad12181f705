"""A whole state dict: its halves, their layers, and the table that is proposed for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Any

from convert.core.tensors import Header
from convert.naming.guessing.draft import Draft
from convert.naming.guessing.layers import ATTENTIONS, matrices_of, norm_layout, norms_of
from convert.naming.guessing.parts import Part, Stack, parts_of
from convert.naming.guessing.roles import Role, Roles
from convert.naming.guessing.settings import FROZEN, LEARNED, Facts, settings_of
from convert.naming.guessing.shapes import (
    IN_OUT,
    OUT_IN,
    Lying,
    Structure,
    direction,
    lying,
    structures,
    width_of,
)
from convert.naming.guessing.tables import (
    OUTPUT,
    SOURCE,
    TARGET,
    Surroundings,
    half_norms_of,
    is_stored,
    tables_of,
)
from convert.naming.guessing.words import DEAD, DECODER, ENCODER, FFN, half_of, has
from convert.naming.proposal import Proposal
from convert.naming.table import LAYER
from transformer_spec import Faults
from transformer_spec.errors import printable_name

ADVICE = (
    "an encoder-decoder has two stacks of numbered layers, the decoder's with one attention more; "
    "docs/your-own-model.md shows how a table is written by hand"
)
SHOWN = 3
MANY = 40  # matrices of a layer, above which none is tried


@dataclass
class StateDict:
    """Names and shapes of a checkpoint, and what is found in them."""

    headers: Mapping[str, Header]
    label: str
    parts: list[Part] = field(init=False)
    faults: Faults = field(default_factory=Faults)
    halves: dict[str, list[Stack]] = field(default_factory=dict)
    width: int = 0
    usual: str = OUT_IN

    def __post_init__(self) -> None:
        shapes = {
            name: tuple(header.shape)
            for name, header in self.headers.items()
            if not LAYER.search(name)
        }
        self.parts = parts_of(shapes)
        self.halves = self._halves()
        self.width = width_of(self.parts) or 0
        self.usual, self.said = direction(self.parts)
        self.flax = any(name.endswith(".kernel") for name in shapes)

    def proposal(self, given: Mapping[str, Any], about: str, containers: Sequence[str]) -> Proposal:
        """The proposed table; what is no encoder-decoder is one UserError."""
        roles, found = Roles(), dict[str, Structure]()
        roles.left = [
            Part(name, None, tuple(header.shape), None)
            for name, header in self.headers.items()
            if LAYER.search(name)  # which a table would read as a number
        ]
        self._check_halves()
        for half in self.halves if self.width else ():
            structure = self._read_layers(half, roles)
            if structure is not None:
                found[half] = structure
        self.faults.raise_if_any(f"no table can be proposed for {self.label}", advice=ADVICE)
        dead = self._read_outside(roles)
        self._check_tables(roles)
        settings = settings_of(self._facts(roles, found), given)
        draft = Draft(roles, settings, self.usual, self.flax, dead)
        return draft.proposal("mine", about, containers)

    def _halves(self) -> dict[str, list[Stack]]:
        """The stacks of each half: by the number of matrices, which words may only confirm."""
        stacks = list(dict.fromkeys(part.stack for part in self.parts if part.stack))
        if len(stacks) == 2 and stacks[0].matrices != stacks[1].matrices:
            small, large = sorted(stacks, key=lambda stack: stack.matrices)
            return {ENCODER: [small], DECODER: [large]}
        found = dict[str, list[Stack]]()
        for half in (ENCODER, DECODER):
            said = [stack for stack in stacks if half_of(stack.before) == half]
            if said:
                found[half] = said
        return found

    def _check_halves(self) -> None:
        stacks = dict.fromkeys(part.stack for part in self.parts if part.stack)
        shown = [
            f"{stack.count} times {printable_name(stack.before)}{stack.layer}, {stack.tensors} "
            "tensors each" for stack in stacks if stack
        ]  # fmt: skip
        there = f"found: {'; '.join(shown) or 'nothing that is numbered'}"
        gone = [half for half in (ENCODER, DECODER) if half not in self.halves]
        told = f"no layers of {' and of '.join(gone)}, by words or by how many matrices they have"
        self.faults.require(not gone, f"{told}; {there}")
        inside = any(len(part.axes) > 1 for part in self.parts if part.stack)
        if inside and not self.width:
            self.faults.add("no table (vocabulary, D) outside the layers with a length of theirs")
        placed = [stack for half in self.halves.values() for stack in half]
        for stack in stacks:
            if stack and stack not in placed and len(self.halves) == 2:
                name = f"{printable_name(stack.before)}{stack.layer}"
                self.faults.add(f"{name}: no word says which half these layers are of")

    def _inside(self, half: str) -> list[Part]:
        return [part for part in self.parts if part.stack and part.stack in self.halves[half]]

    def _read_layers(self, half: str, roles: Roles) -> Structure | None:
        """The roles of a half's layers, into ``roles``; None and a fault where there are none."""
        matrices = [p for p in self._inside(half) if len(p.axes) > 1]
        vectors = [p for p in self._inside(half) if len(p.axes) < 2]
        found = self._matrices(half, matrices)
        if found is None:
            self._tell_matrices(half, matrices)
            return None
        structure, chosen = found
        roles.add(chosen)
        roles.add(norms_of(half, vectors, self.width))
        return structure

    def _matrices(self, half: str, parts: Sequence[Part]) -> tuple[Structure, Roles] | None:
        """What a layer consists of and its roles, as words have it most; None: nothing fits."""
        for usual in (self.usual,) if self.said else (OUT_IN, IN_OUT):
            lies = [(part, lying(part, self.width, usual)) for part in parts]
            pairs = [(part, one) for part, one in lies if one is not None]
            if len(pairs) < len(parts) or len(parts) > MANY:
                return None
            found = list(self._readings(half, pairs))
            if found:
                self.usual = usual
                return max(found, key=lambda one: _agreement(one[1]))
        return None

    def _readings(
        self, half: str, pairs: Sequence[tuple[Part, Lying]]
    ) -> list[tuple[Structure, Roles]]:
        sizes, places = [one.size for _, one in pairs], list(ATTENTIONS[half])
        found = structures(sizes, self.width, places, FFN)
        return [(structure, matrices_of(half, pairs, structure)) for structure in found]

    def _tell_matrices(self, half: str, parts: Sequence[Part]) -> None:
        shapes = [f"{part.path.strip('.') or part.module} {list(part.shape)}" for part in parts]
        attentions = "two attentions" if half == DECODER else "one attention"
        self.faults.add(
            f"a layer of the {half} has the matrices {', '.join(map(printable_name, shapes))}: "
            f"these are not those of {attentions} and one feed-forward network of width "
            f"{self.width}{self._odd(half)}"
        )

    def _odd(self, half: str) -> str:
        """What lies in some layers of a half and not in all, as words behind a fault."""
        placed = {name for part in self._inside(half) for name in (part.weight, part.bias) if name}
        found = [
            printable_name(name)
            for stack in self.halves[half]
            for name in self.headers
            if name.startswith(stack.before) and stack.pattern(name) not in placed
        ]
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return f"; not in all layers: {', '.join(found[:SHOWN])}{more}" if found else ""

    def _read_outside(self, roles: Roles) -> list[Part]:
        """The roles of what lies outside layers, into ``roles``; the rest that may be dead."""
        outside = [part for part in self.parts if part.stack is None]
        dead = [part for part in [*outside, *roles.left] if self._is_dead(part)]
        alive = [part for part in outside if part not in dead]
        roles.left = [part for part in roles.left if part not in dead]
        around = Surroundings(self.width, self.usual, self.half_of, self._first_layers())
        tables = [part for part in alive if len(part.axes) == 2 and self.width in part.axes]
        norms = [part for part in alive if norm_layout(part, self.width) is not None]
        found = tables_of(tables, around)
        roles.add(_shared(found))
        roles.add(half_norms_of(norms, around))
        rest = [part for part in alive if part not in tables and part not in norms]
        for part in rest:
            self._read_rest(part, roles)
        return dead

    def _check_tables(self, roles: Roles) -> None:
        """Without a table of tokens there is no model."""
        there = {name for role in roles.roles for name in role.ours}
        what = f"no table of tokens (vocabulary, {self.width}) outside the layers"
        self.faults.require(bool(there & {SOURCE, TARGET}), what)
        self.faults.raise_if_any(f"no table can be proposed for {self.label}", advice=ADVICE)

    def _read_rest(self, part: Part, roles: Roles) -> None:
        """A bias of the output that stands alone; or what has no place."""
        outputs = [role for role in roles.roles if role.ours[0] in (OUTPUT, TARGET, SOURCE)]
        lengths = {length for role in outputs for length in role.part.shape}
        has_bias = any(role.ours == (OUTPUT,) and role.part.bias for role in roles.roles)
        if len(part.shape) == 1 and part.shape[0] in lengths - {self.width} and not has_bias:
            bias = Part(None, part.name, part.shape, part.shape, part.order)
            roles.roles.append(Role(bias, (OUTPUT,)))
        else:
            roles.left.append(part)

    def _is_dead(self, part: Part) -> bool:
        """Whether a tensor looks like a mask or a count: none of a model's weights."""
        name = part.name.replace("{i}", str(part.stack.first)) if part.stack else part.name
        kind = self.headers[name].dtype.kind if name in self.headers else "f"
        return kind in "iub" or (has(DEAD, part.own) and self.width not in part.shape)

    def _first_layers(self) -> dict[str, int] | None:
        """Where each half's layers begin; None where names are sorted."""
        names = list(self.headers)
        if names == sorted(names):
            return None
        return {half: min(p.order for p in self._inside(half)) for half in self.halves}

    def half_of(self, part: Part) -> str | None:
        """The half of a part outside layers: by words, or by lying where the half's layers lie."""
        said = half_of(part.path)
        if said is not None:
            return said
        befores = {half: stacks[0].before for half, stacks in self.halves.items()}
        shared = commonprefix([before.split(".") for before in befores.values()])
        for half, before in befores.items():
            root = before.split(".")[: len(shared) + 1]
            if len(root) > len(shared) and part.name.split(".")[: len(root)] == root:
                return half
        return None

    def _facts(self, roles: Roles, found: Mapping[str, Structure]) -> Facts:
        by_ours = {ours: role for role in roles.roles for ours in role.ours}
        norms = [role.part for role in roles.roles if "orm" in role.ours[0]]
        stored = {half: by_ours.get(f"{half}.pos_embedding") for half in self.halves}
        kinds = {
            half: None if role is None else FROZEN if is_stored(role, self.flax) else LEARNED
            for half, role in stored.items()
        }
        some = found[ENCODER]
        tables = {"source": SOURCE, "target": TARGET, "output": OUTPUT}
        return Facts(
            width=self.width,
            heads_dim=some.heads_dim,
            heads=_heads(roles, some),
            positions=kinds,
            lengths=tuple(role.part.axes[0] for role in stored.values() if role),
            final_norm=any(name.endswith(".final_norm") for name in by_ours),
            norm_leaf=norms[0].name.rpartition(".")[2] if norms else "weight",
            norm_bias=any(part.bias for part in norms),
            flax=self.flax,
            fused=any(role.part.name.endswith("in_proj_weight") for role in roles.roles),
            tables={k: by_ours[n].part.shape[0] for k, n in tables.items() if _stores(by_ours, n)},
        )


def _agreement(roles: Roles) -> float:
    """How well words agree with roles, all together."""
    return sum(role.scores[role.column] for role in roles.roles)


def _shared(found: Roles) -> Roles:
    """The same where one table is for both halves."""
    by_ours = {role.ours[0]: role for role in found.roles}
    for one, other in ((SOURCE, TARGET), ("encoder.pos_embedding", "decoder.pos_embedding")):
        role = by_ours.get(one) or by_ours.get(other)
        if role is None or (one in by_ours and other in by_ours):
            continue
        if one == SOURCE or half_of(role.part.path) is None:
            found.become({role.part.name: (one, other)})
    return found


def _heads(roles: Roles, structure: Structure) -> int | None:
    """How many heads a shape shows: with axes of their own, or as one block for all."""
    if structure.block:
        return structure.heads_dim // structure.block
    apart = [role for role in roles.roles if (role.layout or "").startswith("(in, heads,")]
    return apart[0].part.shape[1] if apart else None


def _stores(by_ours: Mapping[str, Role], name: str) -> bool:
    return name in by_ours and by_ours[name].part.weight is not None


def propose(
    headers: Mapping[str, Header],
    label: str,
    given: Mapping[str, Any],
    containers: Sequence[str] = ("pt", "safetensors"),
) -> Proposal:
    """A table for a checkpoint by its headers alone."""
    return StateDict(headers, label).proposal(given, f"proposed for {label}", containers)
