"""The rows of embedding tables: a comparison on some tokens looks up the rows of no others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parity.comparison.report import Cause, Row
from parity.comparison.rows import row_of
from parity.comparison.text import EVERY_ROW
from parity.forward.ids import Ids
from parity.forward.measures import STEP_BOUND, largest, worst
from parity.sides.side import Side

HALVES = ("encoder", "decoder")
PIECE = 1 << 12


def table_rows(a: Side, b: Side, batches: Sequence[Ids]) -> tuple[list[Row], list[str]]:
    """A row for each embedding table, scaled as it is used, or a note what was not looked up.

    The row of padding is left out where no output depends on it.
    """
    if a.weights is None or b.weights is None:
        return [], [not_looked_up(a, b, batches)]
    return [_table_row(a, b, half) for half in halves(a)], []


def halves(side: Side) -> tuple[str, ...]:
    """The halves that read tokens."""
    return HALVES[1:] if side.config.feature_dim else HALVES


def _table_row(a: Side, b: Side, half: str) -> Row:
    one, other = table_of(a, half), table_of(b, half)
    difference = scale = 0.0
    for start in range(0, len(one), PIECE):
        rows = _counted(a, half, start, min(start + PIECE, len(one)))
        ours, theirs = scaled(a, one, rows), scaled(b, other, rows)
        difference, scale = worst(difference, largest(ours - theirs)), worst(scale, largest(ours))
    return row_of(EVERY_ROW + name_of(half), difference, scale, STEP_BOUND)


def _counted(side: Side, half: str, start: int, end: int) -> np.ndarray:
    """Numbers of the rows from ``start`` to ``end`` whose tokens count."""
    rows, config = np.arange(start, end), side.config
    starts = half == "decoder" and config.decoder_start_id == config.pad_id
    return rows if starts else rows[rows != config.pad_id]


def name_of(half: str) -> str:
    return f"{half}.embedding.weight"


def table_of(side: Side, half: str) -> np.ndarray:
    """The table of a half; one that is tied lies under the encoder's name."""
    assert side.weights is not None
    own = name_of(half)
    return side.weights[own if own in side.weights else name_of("encoder")]


def scaled(side: Side, table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return table[rows].astype(np.float64) * side.config.embedding_scale


def not_looked_up(a: Side, b: Side, batches: Sequence[Ids]) -> str:
    """How much of the vocabularies a comparison on some tokens says nothing about."""
    parts = {"target": [ids.target for ids in batches]}
    if not a.config.feature_dim:
        parts = {"source": [ids.source for ids in batches], **parts}
    words = []
    for name, part in parts.items():
        seen = len(np.unique(np.concatenate([array.ravel() for array in part])))
        words.append(f"{seen:,} of {getattr(a.config, f'{name}_vocab_size'):,} {name} tokens")
    hidden = " and ".join(side.what for side in (a, b) if side.weights is None)
    own = "--audio or --features" if a.config.feature_dim else "--ids or --text"
    return (
        f"{' and '.join(words)} are looked up; the rows of the others are not compared, as "
        f"{hidden} shows no weights ({own} compares on yours)"
    )


def table_causes(a: Side, b: Side, rows: Sequence[Row]) -> tuple[Cause, ...]:
    """Which rows differ where nothing else does."""
    failed = [half for half in halves(a) for row in rows if row.part == EVERY_ROW + name_of(half)
              and not row.passed]  # fmt: skip
    return tuple(Cause("embedding rows", _in_words(a, b, half)) for half in failed)


def _in_words(a: Side, b: Side, half: str) -> str:
    one, other = table_of(a, half), table_of(b, half)
    apart = [
        token
        for start in range(0, len(one), PIECE)
        for token in _apart(
            a, b, one, other, _counted(a, half, start, min(start + PIECE, len(one)))
        )
    ]
    some = ", ".join(map(str, apart[:5])) + (", ..." if len(apart) > 5 else "")
    return f"{len(apart):,} of {len(one):,} rows of {name_of(half)} differ: those of tokens {some}"


def _apart(a: Side, b: Side, one: np.ndarray, other: np.ndarray, rows: np.ndarray) -> list[int]:
    ours = scaled(a, one, rows)
    far = np.abs(ours - scaled(b, other, rows)) > STEP_BOUND * max(1.0, largest(ours))
    return [int(token) for token in rows[far.any(-1)]]
