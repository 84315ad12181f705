"""Planted bugs in the code of the PyTorch twin, by name, while a block runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torch_transformer.layers as layers
import torch_transformer.model as model
import torch_transformer.relative as relative
from parity.mutations.convolutions import FEATURE_PATCHES
from parity.mutations.relative import (
    AFTER,
    BEFORE,
    FROM_ZERO,
    HALVES,
    ON_MEMORY,
    OTHER_HALF,
    SIGN,
    in_half,
)
from parity.mutations.sinusoids import TABLES
from parity.mutations.structure import MEAN_KEPT
from torch_transformer.dropout import drop
from transformer_spec import TransformerConfig, relative_buckets


def inverted_mask(real: Tensor) -> Tensor:
    return layers.never_empty(~real[:, None, None, :])


def everything_seen(real: Tensor) -> Tensor:
    return torch.ones_like(real)[:, None, None, :]


def later_tokens_seen(Q: int, K: int, device: torch.device | None = None) -> Tensor:
    return torch.ones(1, 1, Q, K, dtype=torch.bool, device=device)


def next_token_seen(Q: int, K: int, device: torch.device | None = None) -> Tensor:
    return later_tokens_seen(Q, K, device).tril(K - Q + 1)


def unbiased_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
    return centred / (variance + self.eps).sqrt() * self.weight + self.bias


def biased_norm(self: layers.StdNorm, x: Tensor) -> Tensor:
    deviation = x.std(-1, correction=0, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (deviation + self.epsilon) * self.weight + self.bias


def epsilon_in_variance(self: layers.StdNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
    return centred / (variance + self.epsilon).sqrt() * self.weight + self.bias


def residual_after_norm(self: layers.Layer, x, h, norm, dropout):
    """Pre: the sum starts from the normed input. Post: the norm is on the sub-layer alone."""
    h = drop(h, self.config.dropout, dropout)
    return norm(x) + h if self.config.norm_position == "pre" else x + norm(h)


def scaled_after_positions(self: model.Half, tokens, table, position_ids, *_):
    x = F.embedding(tokens, table)
    after_norm = self.positions == "learned_after_norm"
    if self.positions == "sinusoidal":
        x = x + model.sinusoids(self.config, x.dtype, x.device)[position_ids]
    elif self.pos_embedding is not None and not after_norm:
        x = x + F.embedding(position_ids, self.pos_embedding.weight)
    x = x * self.config.embedding_scale
    x = x if self.embedding_norm is None else self.embedding_norm(x)
    if self.pos_embedding is not None and after_norm:
        x = x + F.embedding(position_ids, self.pos_embedding.weight)
    return x


Buckets = Callable[[TransformerConfig, str], np.ndarray]


def against_the_sign(config: TransformerConfig, half: str) -> np.ndarray:
    return relative_buckets(config, half)[::-1].copy()


def of_next_distance(config: TransformerConfig, half: str) -> np.ndarray:
    buckets = relative_buckets(config, half)
    return np.append(buckets[1:], buckets[-1:])


def of_distance_before(config: TransformerConfig, half: str) -> np.ndarray:
    buckets = relative_buckets(config, half)
    return np.append(buckets[:1], buckets[:-1])


def of_other_half(config: TransformerConfig, half: str) -> np.ndarray:
    return relative_buckets(config, "decoder" if half == "encoder" else "encoder")


SLIPS: dict[str, Buckets] = {
    SIGN: against_the_sign,
    AFTER: of_next_distance,
    BEFORE: of_distance_before,
    OTHER_HALF: of_other_half,
}


def wrong_in(wrong: Buckets, where: str, config: TransformerConfig, half: str) -> np.ndarray:
    return (wrong if half == where else relative_buckets)(config, half)


plain_attend_self = layers.DecoderLayer.attend_self


def attend_from_zero(self: layers.DecoderLayer, h, mask, cache, dropout, bias=None):
    """What a cached step does that forgets how many tokens there were."""
    found = self.multiheadattention1.added(bias)
    found = None if found is None else found[:, :, :1].expand_as(found)
    return plain_attend_self(self, h, mask, cache, dropout, found)


def distances_to_memory(self: layers.DecoderLayer, x, mask, memory, memory_mask, *others):
    """A decoder layer that adds in cross-attention what it adds in self-attention."""
    cache, dropout, bias = others
    attention, own = self.multiheadattention2, self.multiheadattention1.added(bias)
    h = self.attend_self(self.before(x, self.layerNorm1), mask, cache, dropout, bias)
    x = self.after(x, h, self.layerNorm1, dropout)
    keys_values = memory if isinstance(memory, tuple) else attention.keys_values(memory)
    added = None if own is None else of_columns(own, memory_mask.shape[3])
    h = self.before(x, self.layerNorm2)
    x = self.after(
        x, attention(h, keys_values, memory_mask, dropout, added), self.layerNorm2, dropout
    )
    h = self.ffn(self.before(x, self.layerNorm3), dropout)
    return self.after(x, h, self.layerNorm3, dropout)


def of_columns(bias: Tensor, K: int) -> Tensor:
    """Causal numbers for K keys: all that are behind the query have those of distance 0."""
    more = K - bias.shape[3]
    if more <= 0:
        return bias[:, :, :, :K]
    return torch.cat([bias, bias[:, :, :1, :1].expand(-1, -1, bias.shape[2], more)], 3)


def mean_kept(self: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.rms_norm(x, self.normalized_shape, self.weight, self.eps) + self.bias


PATCHES: dict[str, tuple[Any, str, Callable]] = {
    "mask inverted": (model, "padding_mask", inverted_mask),
    "no padding mask": (model, "padding_mask", everything_seen),
    "no look-ahead mask": (model, "look_ahead_mask", later_tokens_seen),
    "look-ahead one off": (model, "look_ahead_mask", next_token_seen),
    "unbiased variance": (nn.LayerNorm, "forward", unbiased_norm),
    "biased deviation": (layers.StdNorm, "forward", biased_norm),
    "epsilon in the variance": (layers.StdNorm, "forward", epsilon_in_variance),
    "residual after norm": (layers.Layer, "after", residual_after_norm),
    "scale after positions": (model.Half, "embed", scaled_after_positions),
    **{words: (model, "sinusoids", table) for words, table in TABLES.items()},
    **{words: (relative, "relative_buckets", wrong) for words, wrong in SLIPS.items()},
    **{
        in_half(words, half): (relative, "relative_buckets", partial(wrong_in, wrong, half))
        for words, wrong in SLIPS.items()
        for half in HALVES
        if (words, half) != (SIGN, "decoder")
    },
    FROM_ZERO: (layers.DecoderLayer, "attend_self", attend_from_zero),
    ON_MEMORY: (layers.DecoderLayer, "forward", distances_to_memory),
    MEAN_KEPT: (nn.LayerNorm, "forward", mean_kept),
    **FEATURE_PATCHES,
}


@contextlib.contextmanager
def patched(names: tuple[str, ...]) -> Iterator[None]:
    """The PyTorch twin with these bugs."""
    with contextlib.ExitStack() as stack:
        for name in names:
            place, attribute, wrong = PATCHES[name]
            stack.enter_context(mock.patch.object(place, attribute, wrong))
        yield
