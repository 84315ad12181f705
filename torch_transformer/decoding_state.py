"""One step over a cache of keys and values, the twin of flax_transformer/decoding_state.py.

Letters: B source rows, N outputs being written for each, R = B x N, S source length, L columns of
the cache, Q new tokens, V vocabulary.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torch_transformer.layers import (
    KeysValues,
    KeyValueCache,
    MemoryKeysValues,
    look_ahead_mask,
    padding_mask,
)
from torch_transformer.model import Transformer
from training_recipe.search import check_room
from transformer_spec import check_length


class DecodingState(NamedTuple):
    """The sources and the tokens so far of R rows; ``columns`` of the L columns are in use."""

    memory: list[MemoryKeysValues]
    memory_mask: Bool[Tensor, "B 1 1 S"]
    keys_values: list[KeysValues]
    real: Bool[Tensor, "R L"]
    columns: int


def start(
    model: Transformer,
    memory: Float[Tensor, "B S D"],
    source: Int[Tensor, "B S"],
    length: int,
    outputs: int = 1,
) -> DecodingState:
    """The state before the first of at most ``length`` tokens, for N ``outputs`` of each row."""
    check_length(length, model.config)
    R, H, A = len(source) * outputs, model.config.num_heads, model.config.head_dim
    layers, empty = model.decoder.dec_layers, (R, H, length, A)
    keys_values = [(memory.new_zeros(empty), memory.new_zeros(empty)) for _ in layers]
    real = torch.zeros(R, length, dtype=torch.bool, device=source.device)
    memory_mask = padding_mask(model.real_tokens(source))
    return DecodingState(model.memory(memory), memory_mask, keys_values, real, 0)


def next_logits(
    model: Transformer, tokens: Int[Tensor, "R Q"], state: DecodingState
) -> tuple[Float[Tensor, "R Q V"], DecodingState]:
    """The logits after each of Q new tokens, and the state behind them; ``state`` is used up."""
    columns, Q, L = state.columns, tokens.shape[1], state.real.shape[1]
    check_room(columns, Q, L)
    new, real, end = model.real_target_tokens(tokens, columns), state.real, columns + Q
    position_ids = model.position_ids(new, real.sum(1, keepdim=True), columns)
    real[:, columns:end] = new
    mask = padding_mask(real[:, :end]) & look_ahead_mask(Q, end, tokens.device)
    x = model.decoder.embed(tokens, model.target_table, position_ids, None)
    caches = [KeyValueCache(*pair, columns) for pair in state.keys_values]
    x = model.decoder(x, mask, state.memory, state.memory_mask, caches)
    return model.project(x), state._replace(columns=end)


def reorder(state: DecodingState, rows: Int[Tensor, "R"]) -> DecodingState:
    """The state whose row r goes on from row ``rows[r]``, one of the same source."""
    end = state.columns
    for keys, values in state.keys_values:
        keys[:, :, :end] = keys[:, :, :end].index_select(0, rows)
        values[:, :, :end] = values[:, :, :end].index_select(0, rows)
    return state._replace(real=state.real.index_select(0, rows))
