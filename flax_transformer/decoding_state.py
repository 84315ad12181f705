"""One step over a cache of keys and values, the twin of torch_transformer/decoding_state.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L columns of
the cache, Q new tokens, V vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from flax_transformer.layers import KeysValues, KeyValueCache, MemoryKeysValues, padding_mask
from flax_transformer.model import Transformer
from flax_transformer.precision import full_precision
from training_recipe.search import check_room
from transformer_spec import check_length


class DecodingState(NamedTuple):
    """The sources and the tokens so far of R rows; ``columns`` of the L columns are in use."""

    memory: list[MemoryKeysValues]
    memory_mask: Bool[Array, "B 1 1 S"]
    keys_values: list[KeysValues]
    real: Bool[Array, "R L"]
    columns: int | Int[Array, ""]


def start(
    model: Transformer,
    memory: Float[Array, "B S D"],
    source: Int[Array, "B S"],
    length: int,
    outputs: int = 1,
) -> DecodingState:
    """The state before the first of at most ``length`` tokens, for N ``outputs`` of each row."""
    check_length(length, model.config)
    R, H, A = len(source) * outputs, model.config.num_heads, model.config.head_dim
    layers, empty = model.decoder.dec_layers, (R, H, length, A)
    keys_values = [(jnp.zeros(empty, memory.dtype), jnp.zeros(empty, memory.dtype)) for _ in layers]
    real = jnp.zeros((R, length), bool)
    memory_mask = padding_mask(model.real_tokens(source))
    return DecodingState(model.memory(memory), memory_mask, keys_values, real, 0)


@full_precision
def next_logits(
    model: Transformer, tokens: Int[Array, "R Q"], state: DecodingState
) -> tuple[Float[Array, "R Q V"], DecodingState]:
    """The logits after each of Q new tokens, and the state behind them; ``state`` is used up."""
    columns, Q, L = state.columns, tokens.shape[1], state.real.shape[1]
    check_room(columns, Q, L)
    new, real, end = model.real_target_tokens(tokens, columns), state.real, columns + Q
    position_ids = model.position_ids(new, real.sum(1, keepdims=True), columns)
    real = jax.lax.dynamic_update_slice(real, new, (0, columns))
    seen = jnp.arange(L) <= columns + jnp.arange(Q)[:, None]
    mask = padding_mask(real) & seen[None, None]
    x = model.decoder.embed(tokens, model.target_table, position_ids, None)
    caches = [KeyValueCache(*pair, columns) for pair in state.keys_values]
    x = model.decoder(x, mask, state.memory, state.memory_mask, caches)
    keys_values = [(cache.keys, cache.values) for cache in caches]
    return model.project(x), state._replace(keys_values=keys_values, real=real, columns=end)


def reorder(state: DecodingState, rows: Int[Array, "R"]) -> DecodingState:
    """The state whose row r goes on from row ``rows[r]``, one of the same source."""
    keys_values = [(keys[rows], values[rows]) for keys, values in state.keys_values]
    return state._replace(keys_values=keys_values, real=state.real[rows])
