"""The parts of a half's layers: attentions, the feed-forward network, norms."""

from __future__ import annotations

from collections.abc import Sequence

from convert.naming.guessing.assignment import IMPOSSIBLE
from convert.naming.guessing.parts import Part
from convert.naming.guessing.roles import Roles, fill
from convert.naming.guessing.shapes import OUTPUT, Lying, Slot, Structure
from convert.naming.guessing.words import (
    CROSS,
    DECODER,
    ENCODER,
    FFN,
    NORM,
    SELF,
    WEAK,
    has,
    place_score,
    role_score,
)

ATTENTIONS = {
    ENCODER: {SELF: "multiheadattention"},
    DECODER: {SELF: "multiheadattention1", CROSS: "multiheadattention2"},
}
Matrices = Sequence[tuple[Part, Lying]]


def layer_of(half: str) -> str:
    """Our name of a half's layers."""
    return f"{half}.{half[:3]}_layers.{{i}}"


def matrices_of(half: str, matrices: Matrices, structure: Structure) -> Roles:
    """The roles of a layer's matrices, whose sizes are those of the structure."""
    slots, parts = structure.slots, [part for part, _ in matrices]
    words = [[_word_score(part, slot, slots) for slot in slots] for part in parts]
    layouts = [[_layout(lying, slot, structure) for slot in slots] for _, lying in matrices]
    ours = [_ours(half, slot) for slot in slots]
    return fill(ours, parts, words, layouts, left_out=IMPOSSIBLE)


def norms_of(half: str, parts: Sequence[Part], width: int) -> Roles:
    """The norms of a layer: those of its sub-layers in their order."""
    places = [*ATTENTIONS[half], FFN]
    words = [[_norm_score(part, place) for place in places] for part in parts]
    layouts = [[norm_layout(part, width)] * len(places) for part in parts]
    ours = [(f"{layer_of(half)}.layerNorm{at + 1}",) for at in range(len(places))]
    return fill(ours, parts, words, layouts)


def norm_layout(part: Part, width: int) -> str | None:
    """The layout of a norm: a number for each feature, or one for all."""
    if part.shape == (width,):
        return ""
    return "(one)" if part.shape in ((1,), ()) else None


def _ours(half: str, slot: Slot) -> tuple[str, ...]:
    module = f"{layer_of(half)}.{ATTENTIONS[half].get(slot.place, 'ffn')}"
    return tuple(f"{module}.{role}" for role in slot.roles)


def _word_score(part: Part, slot: Slot, slots: Sequence[Slot]) -> float:
    place = place_score(slot.place, part.path)
    first, *others = slot.roles
    if others:
        return place
    alike = [other for other in slots if (other.place == FFN) == (slot.place == FFN)]
    return place + role_score(first, part.own, [r for one in alike for r in one.roles])


def _norm_score(part: Part, place: str) -> float:
    likely = WEAK if has(NORM, part.path) else 0.0
    return place_score(place, part.path) + likely


def _layout(lying: Lying, slot: Slot, structure: Structure) -> str | None:
    """How a matrix lies in a place; None where its size is another."""
    if lying.size != slot.size:
        return None
    if structure.block and slot.size == (structure.block, structure.block):
        return "(block, block)"
    if "heads" in lying.layout:
        return lying.layout.replace(*(("in", "out") if OUTPUT in slot.roles else ("out", "in")))
    return lying.layout.replace("out", "parts out") if len(slot.roles) > 1 else lying.layout
