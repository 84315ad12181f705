"""What a planted bug is: a change of a model's config, of its weights or of the code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.forward.used_settings import uses
from transformer_spec import TransformerConfig
from transformer_spec.errors import ConfigError

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A model as config and float64 weights; ``patches`` name changes of the code (patches.py)."""

    config: TransformerConfig
    weights: Weights
    patches: tuple[str, ...] = ()


Variants = Iterator[tuple[str, Subject]]


@dataclass(frozen=True)
class Mutation:
    """``name`` is the knob; variants give (what is different in words, the changed subject).

    ``field`` is the config field of a knob that is one. A ``one_way`` slip is not undone by being
    planted once more: numbers are lost, the code is another, rows are moved on.
    """

    name: str
    variants: Callable[[Subject], Variants]
    field: str | None = None
    one_way: bool = False


def field_mutation(field: str, words: str, *values: Any) -> Mutation:
    """Another value of one config field that weights do not depend on, where it is used."""

    def variants(subject: Subject) -> Variants:
        for value in values if uses(subject.config, field) else ():
            wanted = value(subject.config) if callable(value) else value
            yield from with_value(subject, field, wanted)

    return Mutation(words, variants, field)


def with_value(subject: Subject, field: str, wanted: Any) -> Variants:
    """Another value of a config field; none where it is the same, or one that no config has."""
    now = getattr(subject.config, field)
    if wanted != now and wanted is not None:
        with contextlib.suppress(ConfigError):
            yield f"{wanted!r} for {now!r}", with_fields(subject, **{field: wanted})


def with_fields(subject: Subject, **fields: Any) -> Subject:
    return replace(subject, config=replace(subject.config, **fields))


def with_weights(subject: Subject, changed: Weights) -> Subject:
    return replace(subject, weights=subject.weights | changed)


def patch_mutation(
    patch: str, words: str, what: str, where: Callable[[TransformerConfig], bool] = lambda _: True
) -> Mutation:
    """The code itself changed, in configs ``where`` it runs."""

    def variants(subject: Subject) -> Variants:
        if where(subject.config):
            yield what, replace(subject, patches=(*subject.patches, patch))

    return Mutation(words, variants, one_way=True)
