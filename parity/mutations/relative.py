"""Planted bugs in relative positions: which row a distance has, in which layers, in what layout."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np

from parity.mutations.subjects import Mutation, Subject, Variants, with_fields, with_weights
from transformer_spec import RELATIVE, weight_shapes
from transformer_spec.errors import ConfigError

TABLE = ".relative_bias.weight"
HALVES = ("encoder", "decoder")
# Slips that look a distance up as another one, each in both halves or in one.
SIGN = "query minus key"
AFTER, BEFORE = "the row of the next key", "the row of the key before"
OTHER_HALF = "as in the other half"
FROM_ZERO = "all as if in the first"
ON_MEMORY = "added in cross-attention too"


def relative_halves(subject: Subject) -> list[str]:
    """The halves whose layers add relative positions."""
    return [
        half
        for half in HALVES
        if getattr(subject.config, f"{half}_positions") == RELATIVE
        and getattr(subject.config, f"num_{half}_layers")
    ]


def tables_of(subject: Subject, half: str = "") -> list[str]:
    """The tables of relative positions, all or those of a half, in the order of the layers."""
    there = weight_shapes(subject.config)
    return [name for name in there if name.startswith(half) and name.endswith(TABLE)]


def in_half(words: str, half: str) -> str:
    """The name of a slip that is in one half alone.

    The sign has none in the decoder: no key is behind the query, and so all have one row, as where
    queries are counted from column 0.
    """
    return f"{words}, in the {half} alone"


def relative_patch(name: str, *slips: str) -> Mutation:
    """Distances looked up as others in both halves, or in one."""

    def variants(subject: Subject) -> Variants:
        halves = relative_halves(subject)
        for words in slips if halves else ():
            alone = [in_half(words, h) for h in halves if (words, h) != (SIGN, "decoder")]
            for slip in (words, *alone):
                yield slip, replace(subject, patches=(*subject.patches, slip))

    return Mutation(name, variants, one_way=True)


def decoder_patch(name: str, words: str) -> Mutation:
    """The decoder's layers changed, where they have relative positions."""

    def variants(subject: Subject) -> Variants:
        if "decoder" in relative_halves(subject):
            yield words, replace(subject, patches=(*subject.patches, words))

    return Mutation(name, variants, one_way=True)


def max_distances(subject: Subject) -> Variants:
    """The last bucket begun elsewhere, as where the library's own value is taken."""
    now = subject.config.relative_max_distance
    for value in (128, 256, 512, 64, 2 * now, now // 2):
        if relative_halves(subject) and value != now:
            with contextlib.suppress(ConfigError):  # a value that no config has
                yield f"{value} for {now}", with_fields(subject, relative_max_distance=value)


def moved_buckets(subject: Subject) -> Variants:
    """Rows of the tables one too far."""
    names = tables_of(subject)
    for step in (1, -1) if relative_halves(subject) else ():
        moved = {name: np.roll(subject.weights[name], step, axis=0) for name in names}
        yield f"by {step:+d} row", with_weights(subject, moved)


def table_layouts(subject: Subject) -> Variants:
    """Numbers of a table (R, H) read as those of one (H, R), in both senses."""
    held = {name: subject.weights[name] for name in tables_of(subject)}
    if relative_halves(subject):
        yield (
            "(H, R) for (R, H)",
            with_weights(
                subject, {name: table.reshape(table.shape[::-1]).T for name, table in held.items()}
            ),
        )
        yield (
            "(R, H) for (H, R)",
            with_weights(
                subject, {name: table.T.reshape(table.shape) for name, table in held.items()}
            ),
        )


def table_layers(subject: Subject) -> Variants:
    """A layer with the table of another, or with none."""
    for half in relative_halves(subject):
        if getattr(subject.config, f"num_{half}_layers") == 1:
            continue
        each = with_table_per_layer(subject)
        first, *others = tables_of(each, half)
        if subject.config.relative_per_layer:
            yield (
                f"the first's in all of the {half}",
                with_weights(each, {name: each.weights[first] for name in others}),
            )
        yield (
            f"in the first alone of the {half}",
            with_weights(each, {name: 0 * each.weights[first] for name in others}),
        )


def with_table_per_layer(subject: Subject) -> Subject:
    """The same function with every layer's table stored for itself."""
    if subject.config.relative_per_layer:
        return subject
    each = replace(subject, config=replace(subject.config, relative_per_layer=True))
    kept = {name: a for name, a in subject.weights.items() if not name.endswith(TABLE)}
    shared = {name: subject.weights[f"{name.partition('.')[0]}{TABLE}"] for name in tables_of(each)}
    return replace(each, weights=kept | shared)
