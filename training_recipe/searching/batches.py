"""Many sources through a backend's ``decode``, in batches of few shapes, as XLA compiles each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from training_recipe.batching.batches import Sounds, encode_sources
from training_recipe.searching.search import Hypothesis, Search, power_of_two, search_bytes
from training_recipe.searching.workers import ONE_WORKER, Workers
from training_recipe.text.frames import Frame
from transformer_spec import TransformerConfig

Decode = Callable[[np.ndarray, Search], list[list[Hypothesis]]]
RowsOf = Callable[[int], int]
Planned = tuple[list[int], tuple[int, int]]  # numbers of sources, (B, S)

SHORTEST_WIDTH = 8
# Without gradients nothing is kept from layer to layer: a batch may be larger than in training.
ROOM = 8


def decode_all(
    decode: Decode,
    sources: Sequence[list[int]],
    search: Search,
    rows_of: RowsOf,
    config: TransformerConfig,
    advance: Callable[[int], object] = lambda count: None,
    frame: Frame | None = None,
    sounds: Sounds | None = None,
    workers: Workers = ONE_WORKER,
) -> list[list[Hypothesis]]:
    """The n best outputs of each source (ids without their frame), in the order of the sources.

    ``rows_of`` says how many rows a batch of a source length may have; ``advance`` hears how many
    sources were done and may raise. A source without tokens has the empty output. The ``frame`` is
    that of the source vocabulary; None: the config's eos at the end. With ``sounds`` a source is
    the number of one. ``workers`` search batches side by side, where there is memory for it.
    """
    frame = frame or Frame((), (config.eos_id,))
    found = [[Hypothesis([], 0.0, 0.0)] for _ in sources]
    advance(sum(not ids for ids in sources))

    def outputs_of(batch: Planned) -> list[list[Hypothesis]]:
        members, (rows, length) = batch
        part = [sources[number] for number in members]
        if sounds is not None:
            return decode(sounds.features([ids[0] for ids in part], rows), search)
        padding = {"pad_id": config.pad_id, "frame": frame}
        return decode(encode_sources(part, rows=rows, length=length, **padding), search)

    lengths = [_positions(ids, frame, sounds) for ids in sources]
    planned = list(batches(lengths, rows_of, config.max_source_length))
    needed = (search_bytes(*shape, config, search, workers.itemsize) for _, shape in planned)
    outputs = workers.affordable(max(needed, default=0)).map(outputs_of, planned)
    with contextlib.closing(outputs):
        for (members, _), part in zip(planned, outputs, strict=True):
            for number, best in zip(members, part, strict=False):
                found[number] = best
            advance(len(members))
    return found


def _positions(ids: list[int], frame: Frame, sounds: Sounds | None) -> int:
    """How many positions a source takes; 0 where it has no tokens."""
    if sounds is not None:
        return sounds.positions
    return len(ids) + frame.size if ids else 0


def within(budget: int, beam: int) -> RowsOf:
    """As many rows, a power of two, as keep rows x beam x length within ``ROOM * budget``."""

    def rows(length: int) -> int:
        most = max(1, ROOM * budget // (length * beam))
        return 1 << (most.bit_length() - 1)

    return rows


def batches(lengths: Sequence[int], rows_of: RowsOf, longest: int) -> Iterator[Planned]:
    """(members, (B, S)) of each batch, the longest sources first; length 0 means no tokens.

    S is a power of two or ``longest``; B is ``rows_of(S)`` or, if all sources are fewer than that,
    a power of two.
    """
    order = [number for number in np.argsort(lengths, kind="stable") if lengths[number] > 0]
    most = power_of_two(len(order))
    while order:
        width = width_of(lengths[order[-1]], longest)
        rows = min(rows_of(width), most)
        members = [int(number) for number in order[-rows:]]
        del order[-rows:]
        yield members, (rows, width)


def width_of(length: int, longest: int) -> int:
    """The S of sources of a length: a power of two, or ``longest`` where that is less."""
    return min(longest, max(SHORTEST_WIDTH, power_of_two(length)))
