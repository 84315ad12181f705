"""The rows of embedding and position tables: a comparison on some ids looks up no others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from parity.comparison.report import Cause, Row
from parity.comparison.rows import row_of
from parity.comparison.text import EVERY_ROW
from parity.forward.ids import Ids
from parity.forward.measures import STEP_BOUND, largest
from parity.sides.side import Side

HALVES = ("encoder", "decoder")
PIECE = 1 << 12
TOKENS, POSITIONS = "tokens", "positions"


@dataclass(frozen=True)
class Table:
    """What both sides look up by the same ``numbers``, those of tokens or of positions.

    Number k is row k + ``offsets`` of the arrays, times ``scales``.
    """

    name: str
    of: str
    numbers: np.ndarray
    arrays: tuple[np.ndarray, np.ndarray]
    scales: tuple[float, float] = (1.0, 1.0)
    offsets: tuple[int, int] = (0, 0)

    def pieces(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Some of the numbers with both sides' rows (N, D) in float64, until all are done."""
        for start in range(0, len(self.numbers), PIECE):
            numbers = self.numbers[start : start + PIECE]
            parts = zip(self.arrays, self.scales, self.offsets, strict=True)
            one, other = (table[numbers + k].astype(np.float64) * by for table, by, k in parts)
            yield numbers, one, other

    @property
    def row(self) -> Row:
        """That of the table which differs most beside what its own size allows.

        A row is what one token looks up: a huge one, as memory that was never set leaves it, says
        nothing of what rounding may do to the others.
        """
        found = [_most_apart(one, other) for _, one, other in self.pieces()]
        _, size, difference = max(found, default=(0.0, 0.0, 0.0))
        return row_of(EVERY_ROW + self.name, difference, size, STEP_BOUND)

    @property
    def cause(self) -> Cause:
        """Which rows differ."""
        apart = list[int]()
        for numbers, one, other in self.pieces():
            apart += numbers[~(_excess(one, other) <= STEP_BOUND)].tolist()
        some = ", ".join(map(str, apart[:5])) + (", ..." if len(apart) > 5 else "")
        rows = f"{len(apart):,} of {len(self.arrays[0]):,} rows of {self.name}"
        return Cause(f"{self.of[:-1]} rows", f"{rows} differ: those of {self.of} {some}")


def _most_apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Of the row that differs most beside its own size, of equal ones the largest: by how much it
    does so, its size, its difference."""
    excess, sizes = _excess(one, other), np.abs(one).max(-1)
    row = np.lexsort((sizes, excess))[-1]
    return float(excess[row]), float(sizes[row]), largest(one[row] - other[row])


def _excess(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The difference of each row (N,) as of numbers around 1; what is not finite is infinite."""
    sizes = np.abs(one).max(-1)
    of_one = np.abs(one - other).max(-1) / np.where(np.isfinite(sizes), np.maximum(1.0, sizes), 1.0)
    return np.nan_to_num(of_one, nan=np.inf, posinf=np.inf)


def table_rows(a: Side, b: Side, batches: Sequence[Ids]) -> tuple[list[Row], list[str]]:
    """A row for each table that is looked up, scaled as it is used, or a note what was not.

    The row of padding is left out where no output depends on it.
    """
    if a.weights is None or b.weights is None:
        return [], [not_looked_up(a, b, batches)]
    return [table.row for table in tables(a, b)], []


def tables(a: Side, b: Side) -> Iterator[Table]:
    """Those of tokens, and those of positions that both sides store, one in memory at a time."""
    for half in HALVES if reads_tokens(a) else HALVES[1:]:
        yield _of_tokens(a, b, half)
    for half in HALVES:
        yield from _of_positions(a, b, half)


def reads_tokens(side: Side) -> bool:
    """Whether the source is tokens."""
    return not side.config.feature_dim


def _of_tokens(a: Side, b: Side, half: str) -> Table:
    arrays, config = (table_of(a, half), table_of(b, half)), a.config
    numbers = np.arange(len(arrays[0]))
    if half == "encoder" or config.decoder_start_id != config.pad_id:
        numbers = numbers[numbers != config.pad_id]
    scales = a.config.embedding_scale, b.config.embedding_scale
    return Table(name_of(half), TOKENS, numbers, arrays, scales)


def _of_positions(a: Side, b: Side, half: str) -> list[Table]:
    """The table of a half's positions, if both sides have one."""
    assert a.weights is not None
    assert b.weights is not None
    name, configs = f"{half}.pos_embedding.weight", (a.config, b.config)
    if name not in a.weights or name not in b.weights:
        return []
    numbers = np.arange(min(config.longest(half) for config in configs))
    offsets = a.config.position_offset, b.config.position_offset
    return [Table(name, POSITIONS, numbers, (a.weights[name], b.weights[name]), offsets=offsets)]


def name_of(half: str) -> str:
    return f"{half}.embedding.weight"


def table_of(side: Side, half: str) -> np.ndarray:
    """The table of a half; one that is tied lies under the encoder's name."""
    assert side.weights is not None
    own = name_of(half)
    return side.weights[own if own in side.weights else name_of("encoder")]


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
    """Which rows of tables differ where nothing else does."""
    failed = {row.part for row in rows if not row.passed and row.part.startswith(EVERY_ROW)}
    if not failed:
        return ()
    return tuple(table.cause for table in tables(a, b) if EVERY_ROW + table.name in failed)
