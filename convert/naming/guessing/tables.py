"""The parts outside layers: embeddings, positions, the output, norms of a half."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from convert.naming.guessing.layers import norm_layout
from convert.naming.guessing.parts import Part
from convert.naming.guessing.roles import Role, Roles, fill
from convert.naming.guessing.shapes import lying
from convert.naming.guessing.words import (
    DECODER,
    ENCODER,
    LOGITS,
    NORM,
    POSITIONS,
    STRONG,
    TABLE,
    WEAK,
    has,
    kind_of,
)

OUTPUT, SOURCE, TARGET = "decoder.finalFc", "encoder.embedding", "decoder.embedding"
PLACES: Mapping[str, tuple[str, re.Pattern[str]]] = {
    SOURCE: (ENCODER, TABLE),
    "encoder.pos_embedding": (ENCODER, POSITIONS),
    TARGET: (DECODER, TABLE),
    "decoder.pos_embedding": (DECODER, POSITIONS),
    OUTPUT: (DECODER, LOGITS),
}
NORMS = (
    "encoder.embedding_norm", "encoder.final_norm", "decoder.embedding_norm", "decoder.final_norm",
)  # fmt: skip
LEAVES = ("weight", "embedding", "kernel")  # of modules; other tables are parameters or buffers
CERTAIN, UNLIKELY = 30.0, -5.0


@dataclass(frozen=True)
class Surroundings:
    """What the parts outside layers are judged by.

    ``half_of`` says the half of a part, ``usual`` how matrices lie, ``first_layer`` the order of
    each half's first layer; None where the order of the file is that of the alphabet.
    """

    width: int
    usual: str
    half_of: Callable[[Part], str | None]
    first_layer: Mapping[str, int] | None


def tables_of(parts: Sequence[Part], around: Surroundings) -> Roles:
    """The roles of tables: (vocabulary, D), (length, D) and the output."""
    names = list(PLACES)
    words = [[_table_score(part, name, around) for name in names] for part in parts]
    layouts = [[_table_layout(part, name, around) for name in names] for part in parts]
    found = fill([(name,) for name in names], parts, words, layouts)
    found.missing = []
    return _by_vocabulary(found)


def _table_score(part: Part, name: str, around: Surroundings) -> float:
    half, kind = PLACES[name]
    said, where = kind_of(part.path), around.half_of(part)
    score = 0.0 if said is None else STRONG if said is kind else -STRONG
    if name != OUTPUT and where is not None:
        score += STRONG if where == half else -STRONG
    if part.bias_shape is not None:
        score += CERTAIN if name == OUTPUT else -CERTAIN
    if kind is POSITIONS and said is not POSITIONS:
        score += UNLIKELY
    return score + (CERTAIN if kind is POSITIONS and len(part.shape) == 3 else 0.0)


def _table_layout(part: Part, name: str, around: Surroundings) -> str | None:
    """The layout of a table in a place; None where its shape is of no such table."""
    if name == OUTPUT:
        matrix = lying(_table(part, around), around.width, around.usual)
        fits = matrix is not None and matrix.size[1] == around.width
        return matrix.layout if matrix and fits and len(part.shape) == 2 else None
    if len(part.axes) != 2 or part.shape[-1] != around.width or part.bias is not None:
        return None
    if len(part.shape) == 2:
        return ""
    if not name.endswith("pos_embedding"):
        return None
    words = ["1" if length == 1 else "rows" for length in part.shape[:-1]]
    return f"({', '.join([*words, 'width'])})"


def _table(part: Part, around: Surroundings) -> Part:
    """An output without a bias lies as its lengths say: one of them is the width."""
    if part.bias_shape is not None or len(part.shape) != 2:
        return part
    rows = next((n for n in part.shape if n != around.width), around.width)
    return replace(part, bias_shape=(rows,))


def _by_vocabulary(found: Roles) -> Roles:
    """The same with the target's table as long as the output, where one of the two is."""
    by_ours = {role.ours[0]: role for role in found.roles}
    if not {OUTPUT, SOURCE, TARGET} <= by_ours.keys():
        return found
    source, target, output = by_ours[SOURCE], by_ours[TARGET], by_ours[OUTPUT]
    if target.part.shape[0] in output.part.shape or source.part.shape[0] not in output.part.shape:
        return found
    if source.loss(target) > 0:
        return found
    found.become({source.part.name: (TARGET,), target.part.name: (SOURCE,)})
    return found


def half_norms_of(parts: Sequence[Part], around: Surroundings) -> Roles:
    """The roles of norms outside layers."""
    words = [[_norm_score(part, name, around) for name in NORMS] for part in parts]
    layouts = [[norm_layout(part, around.width)] * len(NORMS) for part in parts]
    found = fill([(name,) for name in NORMS], parts, words, layouts)
    found.missing = []
    return found


def _norm_score(part: Part, name: str, around: Surroundings) -> float:
    half, _, norm = name.partition(".")
    where, embeds = around.half_of(part), has(TABLE, part.path)
    score = WEAK if has(NORM, part.path) else 0.0
    if where is not None:
        score += STRONG if where == half else -STRONG
    score += STRONG if embeds == (norm == "embedding_norm") else 0.0
    if around.first_layer is not None:
        before = part.order < around.first_layer[half]
        score += WEAK if before == (norm == "embedding_norm") else 0.0
    return score


def is_stored(role: Role, flax: bool) -> bool:
    """Whether a table of positions is no parameter of a module, but lies there as it is."""
    leaf = role.part.name.rpartition(".")[2]
    return role.ours[0].endswith("pos_embedding") and leaf not in LEAVES and not flax


def is_untold(role: Role) -> bool:
    """Whether neither a word nor a shape says which kind of table a role is."""
    part = role.part
    tables = role.ours[0] in PLACES and role.ours[0] != OUTPUT
    return tables and len(part.shape) == 2 and kind_of(part.path) is None
