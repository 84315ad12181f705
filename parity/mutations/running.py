"""A subject run by the PyTorch twin, planted bugs included."""

from __future__ import annotations

import contextlib
import functools
from unittest import mock

import numpy as np
import torch
from torch import nn

import torch_transformer
import torch_transformer.model as torch_model
from parity.forward.ids import Ids
from parity.forward.number_formats import as_float64
from parity.forward.recording import EndsAt, recorded_torch, twin_first_layers, twin_modules
from parity.mutations.code import patched
from parity.mutations.subjects import Subject
from transformer_spec import TransformerConfig


class _Reached(Exception):
    """The sub-step that was asked for has been computed."""


def run(
    subject: Subject, ids: Ids, until: str | None = None, dtype: str = "float64"
) -> dict[str, np.ndarray]:
    """The subject's sub-steps; ``until`` ends the pass as soon as that one is there."""
    with patched(subject.patches), torch.no_grad():
        model = model_of(subject.config, subject.weights, getattr(torch, dtype))
        found = EndsAt(until, _Reached())
        with (
            contextlib.suppress(_Reached),
            recorded_torch(model, twin_modules(model), twin_first_layers(model), found),
        ):
            model(*(torch.from_numpy(array) for array in ids))
    return {name: as_float64(x) for name, x in found.items()}


@functools.lru_cache(maxsize=4)
def _skeleton(config: TransformerConfig, dtype: torch.dtype) -> torch_transformer.Transformer:
    with contextlib.ExitStack() as stack:
        for kind in (nn.Linear, nn.LayerNorm):
            stack.enter_context(mock.patch.object(kind, "reset_parameters", lambda _: None))
        stack.enter_context(mock.patch.object(torch_model, "initialise", lambda *_: None))
        return torch_transformer.Transformer(config, dtype=dtype)


def model_of(
    config: TransformerConfig, weights: dict, dtype: torch.dtype
) -> torch_transformer.Transformer:
    """The PyTorch twin around weights; float64 ones are not copied, and none are drawn first.

    The same object comes back for the same config, with other weights.
    """
    model = _skeleton(config, dtype)
    tensors = {n: torch.from_numpy(np.ascontiguousarray(x)).to(dtype) for n, x in weights.items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval()
