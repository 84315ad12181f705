"""One step over a cache of keys and values, the twin of torch_transformer/decoding_state.py.

Letters: B groups of outputs, N outputs being written in each, R = B x N, S source length, L columns
of the cache, Q new tokens, V vocabulary. A source has one group or, of outputs that never see each
other, one for each.

A column of the cache has a cell for each of a group's N outputs. Cells are never moved: an output
that goes on from another one sees the cells of that one from then on. The N outputs of a group are
queries over the same L x N cells, as all outputs of a source are over the same memory.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from flax_transformer.cpu.attention import transposed
from flax_transformer.layers import KeyValueCache, never_empty, padding_mask
from flax_transformer.model import Source, Transformer
from flax_transformer.precision import full_precision
from training_recipe.searching.search import check_room
from transformer_spec import check_length

MOST_STAGES = 2
SHORTEST_STAGE = 16

Kept = tuple[Float[Array, "B H A K"], Float[Array, "B H K A"]]


class DecodingState(NamedTuple):
    """The M sources and the tokens so far of R rows; ``columns`` of the L columns are in use.

    ``seen`` says of each output which cells hold its real tokens; keys (B, H, A, L x N) and values
    (B, H, L x N, A) have the cells column by column. Keys lie transposed, the memory's too.
    """

    memory: list[Kept]
    memory_mask: Bool[Array, "M 1 1 S"]
    keys_values: list[Kept]
    seen: Bool[Array, "B N L N"]
    columns: int | Int[Array, ""]


def start(
    model: Transformer,
    memory: Float[Array, "N S D"],
    source: Source,
    length: int,
    outputs: int = 1,
    groups: int = 1,
) -> DecodingState:
    """The state before the first of at most ``length`` tokens.

    Each source has so many ``groups`` of N ``outputs``; those of a group may follow one another.
    """
    check_length(length, model.config)
    B, N, H, A = len(source) * groups, outputs, model.config.num_heads, model.config.head_dim
    empty = (B, H, A, length * N), (B, H, length * N, A)
    keys, values = (jnp.zeros(shape, memory.dtype) for shape in empty)
    keys_values = [(keys, values) for _ in model.decoder.dec_layers]
    seen = jnp.zeros((B, N, length, N), bool)
    memory_mask = padding_mask(model.real_source(source))
    kept = [(transposed(keys), values) for keys, values in model.memory(memory)]
    return DecodingState(kept, memory_mask, keys_values, seen, 0)


def listened(model: Transformer, source: Source) -> DecodingState:
    """The state of one output for each source, without a token and without room for one."""
    return start(model, model.encoder_states(source), source, 0)


def after_prompt(
    model: Transformer,
    tokens: Int[Array, "P"],
    state: DecodingState,
    whole: bool,
    count: int | Int[Array, ""],
) -> DecodingState:
    """The state of one output for each source behind the tokens that all of them begin with.

    ``count`` of the tokens are read; the others only fill them up, and make room.
    """
    state = with_room(state, len(tokens))
    if not len(tokens):
        return state
    tokens = jnp.broadcast_to(tokens, (len(state.seen), len(tokens)))
    return next_states(model, tokens, state, whole, count)[1]


def for_outputs(
    state: DecodingState, length: int, outputs: int = 1, groups: int = 1
) -> DecodingState:
    """The state of one output for each source as one of ``groups`` of N ``outputs``.

    It has room for ``length`` columns. What is there already is seen by all outputs.
    """
    M, _, C, _ = state.seen.shape
    B, N = M * groups, outputs

    def spread(cells: Array, axis: int) -> Array:
        shape = [B, *cells.shape[1:]]
        shape[axis] = length * N
        place = (slice(None),) * axis + (slice(0, C * N, N),)
        found = jnp.zeros(shape, cells.dtype)
        return found.at[place].set(cells.repeat(groups, 0)) if C else found

    keys_values = [(spread(keys, 3), spread(values, 2)) for keys, values in state.keys_values]
    seen = jnp.zeros((B, N, length, N), bool)
    if C:
        seen = seen.at[:, :, :C, 0].set(state.seen[:, 0, :, 0].repeat(groups, 0)[:, None])
    return state._replace(keys_values=keys_values, seen=seen)


def with_room(state: DecodingState, length: int) -> DecodingState:
    """The state with ``length`` columns, of which the new ones are empty."""
    more = length - state.seen.shape[2]
    cells = more * state.seen.shape[1]
    keys_values = [
        (pad(keys, 3, cells), pad(values, 2, cells)) for keys, values in state.keys_values
    ]
    return state._replace(keys_values=keys_values, seen=pad(state.seen, 2, more))


Written = TypeVar("Written", bound=Any)  # has state, done and _replace


def in_stages(step: Callable[[Written], Written], written: Written, length: int) -> Written:
    """Step until all outputs are done, over a cache that grows: most end before ``length``.

    What is written has its ``state`` and says by ``done`` what is done.
    """
    for columns in stages(length, written.state.seen.shape[2]):
        written = written._replace(state=with_room(written.state, columns))
        written = jax.lax.while_loop(
            lambda written, end=columns: ~written.done.all() & (written.state.columns < end),
            step,
            written,
        )
    return written


def stages(length: int, least: int = 0) -> list[int]:
    """Ever longer caches, of ``least`` to ``length`` columns; each is one more loop to compile."""
    sizes = [length]
    while sizes[0] > SHORTEST_STAGE and len(sizes) < MOST_STAGES:
        sizes.insert(0, -(-sizes[0] // 2))
    return [columns for columns in sizes if columns >= least]


def pad(array: Array, axis: int, more: int) -> Array:
    """The array with so many zeros at the end of an axis."""
    return jnp.pad(array, [(0, more if i == axis else 0) for i in range(array.ndim)])


@full_precision
def next_logits(
    model: Transformer, tokens: Int[Array, "R Q"], state: DecodingState, whole: bool = False
) -> tuple[Float[Array, "R Q V"], DecodingState]:
    """The logits after each of Q new tokens; the rest as of ``next_states``."""
    states, state = next_states(model, tokens, state, whole)
    return model.project(states), state


@full_precision
def next_states(
    model: Transformer,
    tokens: Int[Array, "R Q"],
    state: DecodingState,
    whole: bool = False,
    count: int | Int[Array, ""] | None = None,
) -> tuple[Float[Array, "R Q D"], DecodingState]:
    """What is projected to logits, and the state behind Q new tokens; ``state`` is used up.

    Padding is not seen by later tokens, unless what is written is read ``whole``. With a ``count``
    so many of the tokens are there, and what is written next takes the place of the others.
    """
    (B, N, L, _), columns, (R, Q) = state.seen.shape, state.columns, tokens.shape
    check_room(columns, Q, L)
    new, end = model.real_target_tokens(tokens, columns) | whole, columns + Q
    if count is not None:
        new, end = new & (jnp.arange(Q) < count), columns + count
    past = state.seen.reshape(R, -1).sum(1, keepdims=True)
    position_ids = model.position_ids(new, past, columns)
    seen = see(state.seen, new.reshape(B, N, Q), columns)
    x = model.decoder.embed(tokens, model.target_table, position_ids, None)
    x = x.reshape(B, N, Q, -1).swapaxes(1, 2).reshape(B, Q * N, -1)  # (R, Q, D) -> (B, Q x N, D)
    caches = [KeyValueCache(*pair, columns * N) for pair in state.keys_values]
    mask = cell_mask(seen, columns, Q)
    memory = [(transposed(keys), values) for keys, values in state.memory]
    x = model.decoder(x, mask, memory, state.memory_mask, caches, None, columns, N)
    x = x.reshape(B, Q, N, -1).swapaxes(1, 2).reshape(R, Q, -1)  # (B, Q x N, D) -> (R, Q, D)
    keys_values = [(cache.keys, cache.values) for cache in caches]
    return x, state._replace(keys_values=keys_values, seen=seen, columns=end)


def see(
    seen: Bool[Array, "B N L N"], real: Bool[Array, "B N Q"], columns: int | Int[Array, ""]
) -> Bool[Array, "B N L N"]:
    """``seen`` with Q new columns, of which every output sees its own cells that are ``real``."""
    own = jnp.eye(seen.shape[1], dtype=bool)[:, None]
    return jax.lax.dynamic_update_slice(seen, real[..., None] & own, (0, 0, columns, 0))


def cell_mask(
    seen: Bool[Array, "B N K N"], columns: int | Int[Array, ""], Q: int
) -> Bool[Array, "B 1 M C"]:
    """Query q of an output sees its cells up to column ``columns`` + q; M = Q x N, C = K x N."""
    B, N, K, _ = seen.shape
    rows = columns + jnp.arange(Q)[:, None]
    past = jnp.arange(K)[None, :] <= rows
    mask = seen[:, None] & past[None, :, None, :, None]  # (B, Q, N, K, N)
    return never_empty(mask.reshape(B, 1, Q * N, K * N))


def reorder(state: DecodingState, parents: Int[Array, "B N"]) -> DecodingState:
    """The state whose output n of a row goes on from the row's output ``parents[:, n]``."""
    rows = jnp.arange(len(parents))[:, None]
    return state._replace(seen=state.seen[rows, parents])
