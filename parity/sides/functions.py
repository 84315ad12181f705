"""Models of the user's own code as a side: what a function of a Python file returns."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch import nn

from parity.forward.ids import Ids
from parity.forward.number_formats import NUMPY, as_float64, in_format
from parity.forward.substeps import LOGITS
from parity.sides.side import Side, Trace
from transformer_spec import TransformerConfig, UserError


@dataclass
class Function(Side):
    """A function of (source, target) -> logits in JAX or NumPy; nothing else is known of it."""

    function: Callable[..., Any] = lambda *_: None

    def trace(self, ids: Ids, precision: str) -> Trace:
        if precision != "float64":
            return {}
        with jax.default_device(jax.devices(self.device)[0]):
            logits = self.function(*(jnp.asarray(array, jnp.int32) for array in ids))
        check_logits(logits, ids, self)
        return {LOGITS: as_float64(logits)}


def check_logits(logits: Any, ids: Ids, side: Side) -> None:
    """What a model returned must be numbers of (batch, target length, vocabulary)."""
    wanted = [*ids.target.shape, side.config.target_vocab_size]
    found = list(getattr(logits, "shape", [])) or type(logits).__name__
    if found != wanted:
        raise UserError(
            f"{side.given} returned {found} for source {list(ids.source.shape)} and target "
            f"{list(ids.target.shape)}; logits should be {wanted}"
        )


def from_function(given: str, rest: str) -> Side:
    """Call FUNCTION of FILE.py; it returns (model or function, TransformerConfig or fields)."""
    path, _, name = rest.rpartition(":")
    if not path:
        raise UserError(f"{given} names no function; give module:FILE.py:FUNCTION")
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist; given as module:FILE.py:FUNCTION in {given}")
    with _neighbours_found(Path(path)):
        make = getattr(_imported(Path(path)), name, None)
        if not callable(make):
            raise UserError(f"{path} has no function {name!r}; given as module:FILE.py:FUNCTION")
        made = make()
    if not (isinstance(made, tuple) and len(made) == 2):
        raise UserError(
            f"{given} should return (model, config), and returned {type(made).__name__}"
        )
    model, fields = made
    config = config_of(given, fields)
    if isinstance(model, nn.Module):
        return PlainModule(given, "a PyTorch module", "torch", config, module=model)
    if callable(model):
        return Function(given, "a function", "jax", config, function=model)
    raise UserError(f"{given} returned {type(model).__name__}, no module and no function")


def config_of(given: str, fields: Any) -> TransformerConfig:
    """A config as the user's function returns it: one of ours, or its fields by name."""
    if isinstance(fields, TransformerConfig):
        return fields
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
        raise UserError(
            f"{given} should return (model, config), the config a TransformerConfig or a dict of "
            f"its fields, and returned a {type(fields).__name__} as config"
        )
    try:
        return TransformerConfig.from_dict(dict(fields))
    except UserError as error:
        raise UserError(f"{given}: {error}") from None


@dataclass
class PlainModule(Side):
    """A PyTorch module of (source, target) -> logits; only its logits are seen."""

    module: nn.Module = field(default_factory=nn.Module)

    def trace(self, ids: Ids, precision: str) -> Trace:
        if precision not in NUMPY:
            return {}
        with torch.no_grad(), in_format(self.module, self.torch_place, precision) as module:
            logits = module(*(torch.from_numpy(array).to(self.torch_place) for array in ids))
        check_logits(logits, ids, self)
        return {LOGITS: as_float64(logits)}


@contextlib.contextmanager
def _neighbours_found(path: Path) -> Iterator[None]:
    """What lies beside a file can be imported by it and by its functions."""
    sys.path.insert(0, str(path.parent))
    try:
        yield
    finally:
        sys.path.remove(str(path.parent))


def _imported(path: Path) -> ModuleType:
    """The module of a file, under a name that is no other module's; dataclasses look it up."""
    name = f"given to parity: {path.resolve()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
