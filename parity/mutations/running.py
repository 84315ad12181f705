"""A subject run by the PyTorch twin, planted bugs included."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import torch

import torch_transformer
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
    number_format = getattr(torch, dtype)
    weights = {name: tensor_of(x, number_format) for name, x in subject.weights.items()}
    with patched(subject.patches), torch.no_grad():
        model = skeleton(subject.config, number_format)
        found = EndsAt(until, _Reached())
        modules = listened_to(subject.config, number_format, until)
        with (
            contextlib.suppress(_Reached),
            recorded_torch(model, modules, twin_first_layers(model), found),
        ):
            given = tuple(torch.from_numpy(array) for array in ids)
            torch.func.functional_call(model, weights, given, strict=True)
    return {name: as_float64(x) for name, x in found.items()}


@functools.lru_cache(maxsize=256)
def listened_to(config: TransformerConfig, dtype: torch.dtype, until: str | None) -> dict[str, str]:
    """The modules that are recorded: all, or those that a sub-step is seen at."""
    modules = twin_modules(skeleton(config, dtype))
    if until is None:
        return modules
    return {path: name for path, name in modules.items() if until in (name, f"{name} input")}


@functools.lru_cache(maxsize=256)
def skeleton(config: TransformerConfig, dtype: torch.dtype) -> torch_transformer.Transformer:
    """The PyTorch twin without numbers, in evaluation mode; the same object for the same config."""
    return torch_transformer.Transformer.skeleton(config, dtype)


def tensor_of(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """The array as a tensor, in its own memory where number format and order allow."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)
