"""How much memory a comparison takes, estimated from shapes before anything is read or computed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.forward.substeps import LOGITS, OVER_FRAMES, substeps
from transformer_spec import TransformerConfig, UserError, source_positions, weight_shapes
from transformer_spec.memory import available, resident, shown

if TYPE_CHECKING:
    from parity.forward.ids import Ids
    from parity.sides.side import Side

WIDE = 8
# What both frameworks take before they compute anything, measured: compilers, pools, caches.
FRAMEWORKS = 300 * 2**20
# Of the available memory, what a comparison takes unless --max-ram says more or less.
SHARE = 0.8


@dataclass(frozen=True)
class Needs:
    """Bytes: with both models whole and gradients, without gradients, module by module."""

    with_gradients: int
    whole: int
    streamed: int


@dataclass(frozen=True)
class Plan:
    """How to compare within the memory there is; ``notes`` say what is left out and why."""

    gradients: bool
    streamed: bool
    notes: tuple[str, ...]


def needs(a: Side, b: Side, batches: Iterable[Ids]) -> Needs:
    """The estimate: what the process has now, float64 weights and their copies, sub-steps."""
    config, batches = a.config, list(batches)
    shapes = [math.prod(shape) for shape in weight_shapes(config).values()]
    weights, largest = WIDE * sum(shapes), WIDE * max(shapes)
    first, every = traced(config, batches[:1]), traced(config, batches)
    base = resident() + FRAMEWORKS + a.held_bytes() + b.held_bytes() + measuring(config, batches)
    stored = a.stored_bytes() + b.stored_bytes()
    whole = base + stored + 4 * weights + 2 * every + 2 * first
    return Needs(
        with_gradients=whole + 3 * weights + 2 * first,
        whole=whole,
        streamed=base + 4 * largest + largest_step(config, batches),
    )


def traced(config: TransformerConfig, batches: Iterable[Ids]) -> int:
    """Bytes of every sub-step of one side in float64."""
    return sum(
        WIDE * rows_of(step, ids, config) * width_of(step, config)
        for ids in batches
        for step in substeps(config)
    )


def rows_of(step: str, ids: Ids, config: TransformerConfig) -> int:
    """Rows of a sub-step: those of the decoder are over either side."""
    source = source_rows(ids, config)
    if step in OVER_FRAMES:
        return math.prod(ids.source.shape[:2])
    return source if step.startswith("encoder.") else max(source, ids.target.size)


def source_rows(ids: Ids, config: TransformerConfig) -> int:
    """Positions of all sources of a batch."""
    return len(ids.source) * source_positions(ids.source.shape, config)


def measuring(config: TransformerConfig, batches: Iterable[Ids]) -> int:
    """Bytes of logits while they are compared: both sides', their logarithms, order, distance."""
    return 12 * WIDE * config.target_vocab_size * max(ids.target.size for ids in batches)


def largest_step(config: TransformerConfig, batches: Iterable[Ids]) -> int:
    """Bytes of the memory's keys and values of all layers, and of four times the widest step."""
    batches, steps = list(batches), substeps(config)
    rows = max(rows_of(LOGITS, ids, config) for ids in batches)
    widest = max(rows_of(s, ids, config) * width_of(s, config) for ids in batches for s in steps)
    return WIDE * (rows * 2 * config.num_decoder_layers * config.heads_dim + 4 * widest)


def width_of(step: str, config: TransformerConfig) -> int:
    if step == LOGITS:
        return config.target_vocab_size
    if step.endswith((".fcQ", ".fcK", ".fcV", ".fcOut input")):
        return config.heads_dim
    inner = step.endswith((".fc1", ".fc2 input", ".fc3"))
    return config.inner_dim if inner else config.hidden_dim


def plan(found: Needs, limit: int, wanted: bool, can_stream: bool) -> Plan:
    """The most that fits into ``limit`` bytes; UserError where nothing does."""
    if found.with_gradients <= limit or (found.whole <= limit and not wanted):
        return Plan(wanted, False, ())
    needed = found.with_gradients if wanted else found.whole
    why = f"needs about {shown(needed)} of memory, and {shown(limit)} are allowed"
    if found.whole <= limit:
        return Plan(False, False, (f"gradients are not compared: that {why} (--max-ram)",))
    if can_stream and found.streamed <= limit:
        notes = f"with both models in memory this {why} (--max-ram): module by module"
        return Plan(False, True, (notes, "gradients and causes need whole models: not looked for"))
    smaller = f", {shown(found.streamed)} module by module" if can_stream else ""
    raise UserError(
        f"not enough memory: a comparison in float64 needs about {shown(found.whole)}{smaller}, "
        f"and {shown(limit)} are allowed; give more with --max-ram, or compare shorter texts"
    )


def limit_of(wanted: int | None) -> int:
    """Bytes that the process may have in all: as asked for, or most of what is free."""
    return wanted if wanted is not None else resident() + int(SHARE * available())
