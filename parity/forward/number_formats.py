"""The number formats of a comparison, and PyTorch modules of other code in one of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import jax
import ml_dtypes
import numpy as np
import torch
from torch import nn

NUMPY = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
# What a TPU does with float32 unless it is asked for more; emulated by the Flax twin.
ONE_PASS = "one-pass-bfloat16"
PLAIN = {ONE_PASS: "float32"}


def as_float64(x: torch.Tensor | jax.Array) -> np.ndarray:
    """In memory of the host; bfloat16 has no NumPy form in PyTorch."""
    if isinstance(x, torch.Tensor):
        return x.detach().to("cpu", torch.float64).numpy().copy()
    return np.asarray(x).astype(np.float64)


@contextlib.contextmanager
def in_format(module: nn.Module, place: str, precision: str) -> Iterator[nn.Module]:
    """The module on a device in a number format, evaluating; its own numbers come back afterwards.

    Without that, a narrow format would take the module's numbers away from every later one.
    """
    numbers = [(parameter, parameter.data) for parameter in module.parameters()]
    buffers = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    module.zero_grad()
    try:
        yield module.to(place, getattr(torch, precision)).eval()
    finally:
        module.zero_grad()
        for parameter, data in numbers:
            parameter.data = data
        for owner, name, buffer in buffers:
            setattr(owner, name, buffer)


@contextlib.contextmanager
def in_precision(precision: str) -> Iterator[None]:
    """Some libraries compute sinusoids in float32 whatever the model is: here they do as asked."""
    if precision != "float64":
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with (
            mock.patch.object(torch, "FloatTensor", torch.DoubleTensor),
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
        ):
            yield
    finally:
        torch.set_default_dtype(before)
