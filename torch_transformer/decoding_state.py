"""One step over a cache of keys and values, the twin of flax_transformer/decoding_state.py.

Letters: B groups of outputs, N outputs being written in each, R = B x N, S source length, L columns
of the cache, Q new tokens, V vocabulary. A source has one group or, of outputs that never see each
other, one for each.

A column of the cache has a cell for each of a group's N outputs. Cells are never moved: an output
that goes on from another one sees the cells of that one from then on. The N outputs of a group are
queries over the same L x N cells, as all outputs of a source are over the same memory.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from torch_transformer.layers import (
    KeysValues,
    KeyValueCache,
    MemoryKeysValues,
    never_empty,
    padding_mask,
)
from torch_transformer.model import Source, Transformer
from training_recipe.searching.search import check_room
from transformer_spec import check_length


class DecodingState(NamedTuple):
    """The M sources and the tokens so far of R rows; ``columns`` of the L columns are in use.

    ``seen`` says of each output which cells hold its real tokens; keys and values (B, H, L x N, A)
    have the cells column by column.
    """

    memory: list[MemoryKeysValues]
    memory_mask: Bool[Tensor, "M 1 1 S"]
    keys_values: list[KeysValues]
    seen: Bool[Tensor, "B N L N"]
    columns: int


def start(
    model: Transformer,
    memory: Float[Tensor, "N S D"],
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
    layers, empty = model.decoder.dec_layers, (B, H, length * N, A)
    keys_values = [(memory.new_zeros(empty), memory.new_zeros(empty)) for _ in layers]
    seen = torch.zeros(B, N, length, N, dtype=torch.bool, device=source.device)
    memory_mask = padding_mask(model.real_source(source))
    return DecodingState(model.memory(memory), memory_mask, keys_values, seen, 0)


def listened(model: Transformer, source: Source) -> DecodingState:
    """The state of one output for each source, without a token and without room for one."""
    return start(model, model.encoder_states(source), source, 0)


def after_prompt(
    model: Transformer, tokens: Int[Tensor, "P"], state: DecodingState, whole: bool
) -> DecodingState:
    """The state of one output for each source behind the tokens that all of them begin with."""
    state = for_outputs(state, len(tokens))
    if not len(tokens):
        return state
    return next_states(model, tokens.expand(len(state.seen), -1), state, whole)[1]


def for_outputs(
    state: DecodingState, length: int, outputs: int = 1, groups: int = 1
) -> DecodingState:
    """The state of one output for each source as one of ``groups`` of N ``outputs``.

    It has room for ``length`` columns. What is there already is seen by all outputs.
    """
    M, _, C, _ = state.seen.shape
    B, N = M * groups, outputs

    def spread(cells: Tensor) -> Tensor:
        found = cells.new_zeros(B, cells.shape[1], length * N, cells.shape[3])
        found[:, :, : C * N : N] = cells.repeat_interleave(groups, 0)
        return found

    keys_values = [(spread(keys), spread(values)) for keys, values in state.keys_values]
    seen = state.seen.new_zeros(B, N, length, N)
    seen[:, :, :C, 0] = state.seen[:, 0, :, 0].repeat_interleave(groups, 0)[:, None]
    return state._replace(keys_values=keys_values, seen=seen)


def next_logits(
    model: Transformer, tokens: Int[Tensor, "R Q"], state: DecodingState, whole: bool = False
) -> tuple[Float[Tensor, "R Q V"], DecodingState]:
    """The logits after each of Q new tokens; the rest as of ``next_states``."""
    states, state = next_states(model, tokens, state, whole)
    return model.project(states), state


def next_states(
    model: Transformer, tokens: Int[Tensor, "R Q"], state: DecodingState, whole: bool = False
) -> tuple[Float[Tensor, "R Q D"], DecodingState]:
    """What is projected to logits, and the state behind Q new tokens; ``state`` is used up.

    Padding is not seen by later tokens, unless what is written is read ``whole``: an output in
    which padding is a token like others.
    """
    (B, N, L, _), columns, (R, Q) = state.seen.shape, state.columns, tokens.shape
    check_room(columns, Q, L)
    new, end = model.real_target_tokens(tokens, columns) | whole, columns + Q
    past = state.seen.reshape(R, -1).sum(1, keepdim=True)
    position_ids = model.position_ids(new, past, columns)
    seen = see(state.seen, new.reshape(B, N, Q), columns)
    x = model.decoder.embed(tokens, model.target_table, position_ids, None)
    x = unplaced(model, tokens, x) if whole else x
    x = x.reshape(B, N, Q, -1).transpose(1, 2).reshape(B, Q * N, -1)  # (R, Q, D) -> (B, Q x N, D)
    caches = [KeyValueCache(*pair, columns * N) for pair in state.keys_values]
    mask = cell_mask(seen[:, :, :end], columns, Q)
    x = model.decoder(x, mask, state.memory, state.memory_mask, caches, None, columns, N)
    x = x.reshape(B, Q, N, -1).transpose(1, 2).reshape(R, Q, -1)  # (B, Q x N, D) -> (R, Q, D)
    return x, state._replace(seen=seen, columns=end)


def unplaced(
    model: Transformer, tokens: Int[Tensor, "R Q"], x: Float[Tensor, "R Q D"]
) -> Float[Tensor, "R Q D"]:
    """Padding without a position where positions skip it: fairseq's sinusoid of it is 0."""
    config = model.config
    if not config.positions_skip_padding or config.embedding_norm:
        return x
    bare = model.target_table[config.pad_id] * config.embedding_scale
    return torch.where((tokens == config.pad_id)[..., None], bare, x)


def see(
    seen: Bool[Tensor, "B N L N"], real: Bool[Tensor, "B N Q"], columns: int
) -> Bool[Tensor, "B N L N"]:
    """``seen`` with Q new columns, of which every output sees its own cells that are ``real``."""
    own = torch.eye(seen.shape[1], dtype=torch.bool, device=seen.device)[:, None]
    seen[:, :, columns : columns + real.shape[2]] = real[..., None] & own
    return seen


def cell_mask(seen: Bool[Tensor, "B N K N"], columns: int, Q: int) -> Bool[Tensor, "B 1 M C"]:
    """Query q of an output sees its cells up to column ``columns`` + q; M = Q x N, C = K x N."""
    B, N, K, _ = seen.shape
    rows = columns + torch.arange(Q, device=seen.device)[:, None]
    past = torch.arange(K, device=seen.device)[None, :] <= rows
    mask = seen[:, None] & past[None, :, None, :, None]  # (B, Q, N, K, N)
    return never_empty(mask.reshape(B, 1, Q * N, K * N))


def reorder(state: DecodingState, parents: Int[Tensor, "B N"]) -> DecodingState:
    """The state whose output n of a row goes on from the row's output ``parents[:, n]``."""
    rows = torch.arange(len(parents), device=parents.device)[:, None]
    return state._replace(seen=state.seen[rows, parents])
