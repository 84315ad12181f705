"""What the output of a T5 model is multiplied by, and which of its tables are one: by tables.

The factor is 1/sqrt(D) in the first T5, whose output projection is its table of words, and 1 where
that is a weight of its own. ``tie_word_embeddings`` said both in version 4 of the library. Version
5 always writes that it is true, has a key of its own for the factor of T5 alone, and computes mT5
without it and UMT5 with it whatever the model was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from convert.core.tensors import Tensors, as_bytes

SHARED, SOURCE_TABLE = "shared.weight", "encoder.embed_tokens.weight"
TARGET_TABLE, OUTPUT_TABLE = "decoder.embed_tokens.weight", "lm_head.weight"
HALVES = (SHARED, SOURCE_TABLE, TARGET_TABLE)
TIE, SCALE, VERSION = "tie_word_embeddings", "scale_decoder_outputs", "transformers_version"
FIRST_NEW = 5  # the version of the library that ties whatever the file says
WRITTEN_BY_NEW = f"{FIRST_NEW}.0.0"

SCALED, PLAIN, PLAIN_BY_NEW = "1/sqrt(D)", "1", "1 by version 5"
OVERWRITTEN, ASK = "overwritten", "ask"
T5, MT5, UMT5 = "t5", "mt5", "umt5"


@dataclass(frozen=True)
class Tables:
    """The tables of words of a file, by their bytes: which are one, and whether there is an output.

    ``ties`` are those of a config: ``all``, ``source_target``, or ``none`` where halves differ.
    """

    ties: str
    has_output: bool

    @property
    def own_output(self) -> bool:
        return self.ties != "all"


def tables_in(tensors: Tensors) -> Tables:
    """Those of a file of which at least one table is there."""
    source = next((n for n in (SOURCE_TABLE, SHARED, TARGET_TABLE) if n in tensors), SHARED)
    target = next((n for n in (TARGET_TABLE, SHARED, SOURCE_TABLE) if n in tensors), SHARED)
    there = OUTPUT_TABLE in tensors
    if not _same(tensors, source, target):
        return Tables("none", there)
    own = there and not _same(tensors, target, OUTPUT_TABLE)
    return Tables("source_target" if own else "all", there)


def _same(tensors: Tensors, one: str, other: str) -> bool:
    """Whether two names hold one table, which only their bytes say."""
    if one == other or one not in tensors or other not in tensors:
        return True
    if tensors[one] != tensors[other]:
        return False
    return np.array_equal(as_bytes(tensors.read(one)), as_bytes(tensors.read(other)))


@dataclass(frozen=True)
class Said:
    """All that decides the factor: class, tables, settings, and whether version 5 wrote the file.

    ``scale`` is None where the settings have no such key.
    """

    kind: str
    own: bool
    tie: bool
    scale: bool | None
    new: bool


class Row(NamedTuple):
    """One case; None stands for any value, and ``scale`` NO for a key that is not there."""

    kind: str
    own: bool | None
    tie: bool | None
    scale: bool | str | None
    new: bool | None
    verdict: str

    def holds(self, said: Said) -> bool:
        scale = NO if said.scale is None else said.scale
        pairs = ((self.own, said.own), (self.tie, said.tie), (self.new, said.new))
        same = all(wanted in (None, given) for wanted, given in (*pairs, (self.scale, scale)))
        return self.kind == said.kind and same


NO = "no key"
# The first row that holds decides; every case has one.
ROWS = (
    #   class own    tie    scale  version 5
    Row(T5, True, True, None, False, OVERWRITTEN),
    Row(T5, None, True, False, False, ASK),  # 4 computes with the factor, 5 without
    Row(T5, None, False, True, False, ASK),  # the other way round
    Row(T5, None, None, True, None, SCALED),
    Row(T5, None, None, False, None, PLAIN),
    Row(T5, None, False, NO, None, PLAIN),
    Row(T5, True, True, NO, True, ASK),  # the first ones of version 5 had no key
    Row(T5, False, True, NO, None, SCALED),
    Row(MT5, True, True, None, False, OVERWRITTEN),
    Row(MT5, True, None, None, None, PLAIN),
    Row(MT5, False, None, None, True, PLAIN_BY_NEW),
    Row(MT5, False, True, None, False, SCALED),
    Row(MT5, False, False, None, False, PLAIN),
    Row(UMT5, True, True, None, False, OVERWRITTEN),
    Row(UMT5, True, True, None, True, ASK),
    Row(UMT5, None, False, None, None, PLAIN),
    Row(UMT5, False, True, None, None, SCALED),
)


def verdict_on(said: Said) -> str:
    """SCALED, PLAIN, or why it is not known; PLAIN_BY_NEW may be another by the user's word."""
    return next(row.verdict for row in ROWS if row.holds(said))


def is_new(settings: Mapping[str, Any]) -> bool:
    """Whether version 5 of the library wrote a config.json, by its version or a key of its own."""
    version = settings.get(VERSION)
    if version is None:
        return settings.get(SCALE) is not None
    number = str(version).partition(".")[0]
    return number.isdecimal() and int(number) >= FIRST_NEW


class Written(NamedTuple):
    """What a config.json says of ties and factor, and the tables that lie beside it."""

    settings: Mapping[str, Any]
    tables: tuple[str, ...]


ONE, WITH_OUTPUT = (SHARED,), (SHARED, OUTPUT_TABLE)
APART = (SHARED, TARGET_TABLE, OUTPUT_TABLE)  # without shared, version 5 ties what there is
NEW = {TIE: True, VERSION: WRITTEN_BY_NEW}
# A model of ours by class, ties and factor; what is not here no version of the library computes.
WRITTEN = {
    (T5, "all", SCALED): Written({}, ONE),
    (T5, "all", PLAIN): Written({TIE: False}, WITH_OUTPUT),
    (T5, "source_target", PLAIN): Written({TIE: False}, WITH_OUTPUT),
    (T5, "source_target", SCALED): Written(NEW | {SCALE: True}, WITH_OUTPUT),
    (T5, "none", PLAIN): Written(NEW | {SCALE: False}, APART),
    (T5, "none", SCALED): Written(NEW | {SCALE: True}, APART),
    (MT5, "all", SCALED): Written({TIE: True}, ONE),
    (MT5, "all", PLAIN): Written({TIE: False}, WITH_OUTPUT),
    (MT5, "source_target", PLAIN): Written({TIE: False}, WITH_OUTPUT),
    (MT5, "none", PLAIN): Written(NEW, APART),
    (UMT5, "all", SCALED): Written({}, ONE),
    (UMT5, "all", PLAIN): Written({TIE: False}, WITH_OUTPUT),
    (UMT5, "source_target", PLAIN): Written({TIE: False}, WITH_OUTPUT),
    (UMT5, "source_target", SCALED): Written(NEW, WITH_OUTPUT),
    (UMT5, "none", SCALED): Written(NEW, APART),
}
# What version 5 computes of these is another function; version 4 computes them.
WRONG_IN_NEW = {
    (MT5, "all", SCALED): "without the factor 1/sqrt(D) on its output",
    (UMT5, "all", PLAIN): "with a factor 1/sqrt(D) on its output",
    (UMT5, "source_target", PLAIN): "with a factor 1/sqrt(D) on its output",
}
