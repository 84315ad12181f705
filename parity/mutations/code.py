"""Planted bugs in the code of the PyTorch twin, by name, while a block runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torch_transformer.layers as layers
import torch_transformer.model as model
from parity.mutations.sinusoids import TABLES
from torch_transformer.dropout import drop


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


PATCHES: dict[str, tuple[Any, str, Callable]] = {
    "mask inverted": (model, "padding_mask", inverted_mask),
    "no padding mask": (model, "padding_mask", everything_seen),
    "no look-ahead mask": (model, "look_ahead_mask", later_tokens_seen),
    "look-ahead one off": (model, "look_ahead_mask", next_token_seen),
    "unbiased variance": (nn.LayerNorm, "forward", unbiased_norm),
    "residual after norm": (layers.Layer, "after", residual_after_norm),
    "scale after positions": (model.Half, "embed", scaled_after_positions),
    **{words: (model, "sinusoids", table) for words, table in TABLES.items()},
}


@contextlib.contextmanager
def patched(names: tuple[str, ...]) -> Iterator[None]:
    """The PyTorch twin with these bugs."""
    with contextlib.ExitStack() as stack:
        for name in names:
            place, attribute, wrong = PATCHES[name]
            stack.enter_context(mock.patch.object(place, attribute, wrong))
        yield
