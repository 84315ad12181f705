"""What a model computes on the way to its logits, in either framework, by the name of sub-steps."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any
from unittest import mock

from flax import nnx
from torch import nn

import flax_transformer.layers as flax_layers
import flax_transformer.model as flax_model
import flax_transformer.primitives as flax_primitives
import torch_transformer.layers as torch_layers
import torch_transformer.model as torch_model
from parity.forward.substeps import EMBED

Recorded = MutableMapping[str, Any]
TORCH_NORMS = (nn.LayerNorm, nn.RMSNorm, torch_layers.StdNorm)
TORCH_RECORDED = (
    nn.Linear,
    torch_layers.Convolution,
    *TORCH_NORMS,
    torch_model.OutputProjection,
)
TORCH_LAYERS = (torch_layers.EncoderLayer, torch_layers.DecoderLayer)
FLAX_NORMS = (flax_primitives.LayerNorm, flax_primitives.RMSNorm, flax_primitives.StdNorm)
FLAX_LENT = (flax_primitives.Linear, flax_primitives.Convolution, *FLAX_NORMS)
FLAX_RECORDED = (*FLAX_LENT, flax_model.OutputProjection)
FLAX_LAYERS = (flax_layers.EncoderLayer, flax_layers.DecoderLayer)


def twin_modules(model: nn.Module) -> dict[str, str]:
    """The modules of the PyTorch twin that are recorded, each under its own name."""
    return {name: name for name, m in model.named_modules() if isinstance(m, TORCH_RECORDED)}


def twin_first_layers(model: nn.Module) -> dict[str, str]:
    layers = [name for name, m in model.named_modules() if isinstance(m, TORCH_LAYERS)]
    return {name: name.partition(".")[0] for name in layers if name.endswith(".0")}


@contextlib.contextmanager
def recorded_torch(
    model: nn.Module,
    modules: Mapping[str, str],
    first_layers: Mapping[str, str],
    found: Recorded | None = None,
) -> Iterator[Recorded]:
    """Record modules (their path -> canonical name) and what enters the first layer of a half.

    A module that runs twice keeps what it computed last. What is recorded goes into ``found``.
    """
    found = {} if found is None else found
    with contextlib.ExitStack() as hooks:
        for path, name in modules.items():
            handle = model.get_submodule(path).register_forward_hook(
                functools.partial(_keep, found, name), with_kwargs=True
            )
            hooks.callback(handle.remove)
        for path, half in first_layers.items():
            handle = model.get_submodule(path).register_forward_pre_hook(
                functools.partial(_keep_embedding, found, half), with_kwargs=True
            )
            hooks.callback(handle.remove)
        yield found


class EndsAt(dict):
    """Raises ``reached`` as soon as it holds ``until``."""

    def __init__(self, until: str | None, reached: Exception) -> None:
        self.until, self.reached = until, reached

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if name == self.until:
            raise self.reached


def _keep(found: Recorded, name: str, _, args: tuple, kwargs: dict, output: Any) -> None:
    found[f"{name} input"] = args[0] if args else next(iter(kwargs.values()))
    found[name] = output[0] if isinstance(output, tuple) else output


def _keep_embedding(found: Recorded, half: str, _, args: tuple, kwargs: dict) -> None:
    given = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values())))
    found[f"{half}.{EMBED}"] = given


@contextlib.contextmanager
def recorded_flax(model: nnx.Module, found: Recorded) -> Iterator[Recorded]:
    """The same for the Flax twin, whose classes are listened to while the block runs."""
    names = {id(m): ".".join(map(str, path)) for path, m in nnx.iter_modules(model)}

    def listening(kind: type, keep):
        plain = kind.__call__

        def call(self, x, *args, **kwargs):
            output = plain(self, x, *args, **kwargs)
            if id(self) in names:
                keep(names[id(self)], x, output)
            return output

        return mock.patch.object(kind, "__call__", call)

    def keep_both(name, x, output):
        found[f"{name} input"], found[name] = x, output

    def keep_embedding(name, x, _):
        if name.endswith(".0"):
            found[f"{name.partition('.')[0]}.{EMBED}"] = x

    with contextlib.ExitStack() as stack:
        for kind in FLAX_RECORDED:
            stack.enter_context(listening(kind, keep_both))
        for kind in FLAX_LAYERS:
            stack.enter_context(listening(kind, keep_embedding))
        yield found
