"""Models of the user's own code as a side: what a function of a Python file returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import torch
from flax import nnx
from torch import nn

from parity.forward.ids import Ids
from parity.forward.number_formats import NUMPY, as_float64, in_format
from parity.forward.substeps import LOGITS
from parity.sides.given import MODULE
from parity.sides.own_code import Made, fingerprint, guarded, made_by, same_twice
from parity.sides.side import Side, Trace
from transformer_spec import TransformerConfig, UserError

CALLING = "calling the model"
NARROW = ("float32", "float16", "bfloat16")


@dataclass
class OwnCode(Side):
    """A model of the user's own code; ``tried`` once it was seen to give the same twice."""

    tried: bool = False


def path_of(given: str) -> str:
    """FILE.py of module:FILE.py:FUNCTION."""
    return given.removeprefix(MODULE).rpartition(":")[0]


@dataclass
class Function(OwnCode):
    """A function of (source, target) -> logits in JAX or NumPy; nothing else is known of it."""

    function: Callable[..., Any] = lambda *_: None

    def trace(self, ids: Ids, precision: str) -> Trace:
        if precision != "float64":
            return {}
        with jax.default_device(jax.devices(self.device)[0]):
            logits = self.called(ids)
            check_logits(logits, ids, self)
            check_width(logits, self.given)
            if not self.tried:
                same_twice(self.given, as_float64(logits), as_float64(self.called(ids)))
                self.tried = True
        return {LOGITS: as_float64(logits)}

    def called(self, ids: Ids) -> Any:
        with guarded(self.given, path_of(self.given), CALLING):
            wide = jnp.float64 if self.config.feature_dim else jnp.int32
            return self.function(jnp.asarray(ids.source, wide), jnp.asarray(ids.target, jnp.int32))


def check_logits(logits: Any, ids: Ids, side: Side) -> None:
    """What a model returned must be numbers of (batch, target length, vocabulary)."""
    wanted = [*ids.target.shape, side.config.target_vocab_size]
    found = list(getattr(logits, "shape", [])) or type(logits).__name__
    if found != wanted:
        raise UserError(
            f"{side.given} returned {found} for source {list(ids.source.shape)} and target "
            f"{list(ids.target.shape)}; logits should be {wanted}"
        )


def check_width(logits: Any, given: str) -> None:
    """Logits that should be float64 are; what float32 rounds would hide what is compared."""
    found = str(logits.dtype).removeprefix("torch.")
    if found in NARROW:
        raise UserError(
            f"{given} computes in {found} where float64 is asked for, and rounding would hide what "
            "is compared; let its code name no number format of its own and, in JAX, return "
            "(function, weights), whose weights are widened"
        )


def from_function(given: str, rest: str, config: TransformerConfig | None = None) -> Side:
    """Call FUNCTION of FILE.py; it returns a model, or (model, TransformerConfig or its fields).

    A model alone has ``config``, that of the other side.
    """
    made = made_by(given, rest)
    if made.fields is not None:
        config = config_of(given, made.fields)
    if config is None:
        raise UserError(
            f"{given} returned no config, and the other side has none to take its place; return "
            "(model, config)"
        )
    if isinstance(made.model, nn.Module):
        return PlainModule(given, "a PyTorch module", "torch", config, module=made.model)
    what, function = function_of(given, made)
    return Function(given, what, "jax", config, function=function)


def function_of(given: str, made: Made) -> tuple[str, Callable[..., Any]]:
    """What JAX calls, with its weights in float64, and what it is."""
    model = made.model
    if isinstance(model, nnx.Module):
        model.eval()
        graph, state = nnx.split(model)
        wide = jax.tree.map(in_float64, state)
        return "a Flax NNX module", nnx.merge(graph, wide)
    if made.params is not None:
        wide = jax.tree.map(in_float64, made.params)
        return "a function of weights", lambda *ids: model(wide, *ids)
    if callable(model):
        whole = jax.tree_util.all_leaves([model])
        tree = model if whole else jax.tree.map(in_float64, model)
        return ("a function" if whole else "a tree that is called"), tree
    raise UserError(f"{given} returned {type(model).__name__}, no module and no function")


def in_float64(leaf: Any) -> Any:
    """A leaf of weights in float64; anything else as it is."""
    is_weight = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.asarray(leaf, jnp.float64) if is_weight else leaf


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
class PlainModule(OwnCode):
    """A PyTorch module of (source, target) -> logits; only its logits are seen."""

    module: nn.Module = field(default_factory=nn.Module)

    def trace(self, ids: Ids, precision: str) -> Trace:
        if precision not in NUMPY:
            return {}
        with torch.no_grad(), in_format(self.module, self.torch_place, precision) as module:
            before = None if self.tried else fingerprint(module)
            try:
                logits = self.called(module, ids, precision)
            except UserError:
                if precision == "float64":
                    raise
                return {}  # numbers of its own have another format
            check_logits(logits, ids, self)
            if precision == "float64":
                check_width(logits, self.given)
            if before is not None:
                again = self.called(module, ids, precision)
                self.try_again(module, before, logits, again)
        return {LOGITS: as_float64(logits)}

    def try_again(self, module: nn.Module, before: Any, logits: Any, again: Any) -> None:
        """A call changes no weight, and the same ids give the same logits."""
        if fingerprint(module) != before:
            raise UserError(f"{self.given} changes its weights when it is called: it trains there")
        same_twice(self.given, as_float64(logits), as_float64(again))
        self.tried = True

    def called(self, module: nn.Module, ids: Ids, precision: str) -> Any:
        source, target = (torch.from_numpy(array).to(self.torch_place) for array in ids)
        if self.config.feature_dim:
            source = source.to(getattr(torch, precision))
        with guarded(self.given, path_of(self.given), CALLING):
            return module(source, target)
