"""A model of the user's own code whose weights can be set: (weights, source, target) -> logits."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from parity.forward.ids import Ids
from parity.forward.number_formats import as_float64
from parity.sides.functions import CALLING, check_width, path_of
from parity.sides.own_code import guarded
from transformer_spec import UserError

# A search calls for milliseconds what takes seconds to compile well.
COMPILED_FAST = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
Arrays = Mapping[str, np.ndarray]


class Subject(ABC):
    """``shapes`` are those of the tensors that can be set, by the names that files have.

    ``trained`` are the names of parameters; others are buffers. ``shared`` are those that are one
    parameter under several names. ``evaluations`` counts calls.
    """

    shapes: dict[str, tuple[int, ...]]
    trained: frozenset[str]
    held: dict[str, np.ndarray]
    shared: tuple[tuple[str, ...], ...] = ()

    def __init__(self, given: str) -> None:
        self.given, self.evaluations = given, 0

    def logits(self, weights: Arrays, ids: Ids) -> np.ndarray:
        """The logits (B, T, V) in float64; what the code raises is a UserError."""
        self.evaluations += 1
        with guarded(self.given, path_of(self.given), CALLING):
            found = self.compute(weights, ids)
        if getattr(found, "ndim", 0) != 3 or found.shape[:2] != ids.target.shape:
            shown = list(getattr(found, "shape", [])) or type(found).__name__
            raise UserError(
                f"{self.given} returned {shown} for target {list(ids.target.shape)}; logits are "
                "(batch, target length, vocabulary)"
            )
        check_width(found, self.given)
        return as_float64(found)

    @abstractmethod
    def compute(self, weights: Arrays, ids: Ids) -> Any:
        """What the code returns."""

    def has_apart(self, names: Collection[str]) -> bool:
        """Whether these are known to be trained apart, whatever their numbers."""
        return False


class TorchSubject(Subject):
    """A PyTorch module, in float64; buffers in its state can be set as parameters can.

    A module that has several names is as many modules here, so that each name can be set alone.
    """

    def __init__(self, given: str, module: nn.Module) -> None:
        super().__init__(given)
        self.module = copy.deepcopy(module).double().eval()
        self.shared = _shared(self.module)
        _take_apart(self.module)
        state = {
            name: tensor
            for name, tensor in self.module.state_dict().items()
            if tensor.is_floating_point()
        }
        self.shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        names = dict(self.module.named_parameters(remove_duplicate=False))
        self.trained = frozenset(names)
        self.held = {name: tensor.detach().numpy() for name, tensor in state.items()}

    def has_apart(self, names: Collection[str]) -> bool:
        one = any({*names} <= {*group} for group in self.shared)
        return self.trained.issuperset(names) and not one

    def compute(self, weights: Arrays, ids: Ids) -> Any:
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
        with torch.no_grad():
            arguments = tuple(torch.from_numpy(part) for part in ids)
            return torch.func.functional_call(
                self.module, tensors, arguments, tie_weights=False, strict=False
            )


def _shared(module: nn.Module) -> tuple[tuple[str, ...], ...]:
    """The names of each parameter that has several."""
    names = defaultdict[nn.Parameter, list[str]](list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names[parameter].append(name)
    return tuple(tuple(group) for group in names.values() if len(group) > 1)


def _take_apart(module: nn.Module) -> None:
    """Give every further name of a module inside this one a copy of it."""
    seen = set[nn.Module]()
    for name, one in list(module.named_modules(remove_duplicate=False)):
        if one in seen:
            module.set_submodule(name, copy.deepcopy(one))
        seen.add(one)


class TreeSubject(Subject):
    """A function of (tree of arrays, source, target): NNX modules, Equinox-like callables.

    ``names`` are those of the tree's floating leaves, None where a leaf is nothing to set.
    """

    def __init__(self, given: str, call: Callable[..., Any], tree: Any) -> None:
        super().__init__(given)
        leaves, self.structure = jax.tree_util.tree_flatten_with_path(tree)
        self.names = [_name(path) if _is_weight(leaf) else None for path, leaf in leaves]
        self.leaves = [leaf for _, leaf in leaves]
        self.held = {
            name: np.asarray(leaf, np.float64)
            for name, leaf in zip(self.names, self.leaves, strict=True)
            if name is not None
        }
        self.shapes = {name: array.shape for name, array in self.held.items()}
        self.trained = frozenset(self.shapes)
        self.call = jax.jit(self._call(call), compiler_options=COMPILED_FAST)

    def without_prefix(self, wanted: Collection[str]) -> None:
        """Names without what all begin with, where files have them so: a field of the tree."""
        short = {name: name.partition(".")[2] for name in self.shapes}
        if {*short.values()} == {*wanted}:
            self.names = [None if name is None else short[name] for name in self.names]
            self.held = {short[name]: array for name, array in self.held.items()}
            self.shapes = {short[name]: shape for name, shape in self.shapes.items()}
            self.trained = frozenset(self.shapes)

    def _call(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(held: Mapping[str, Any], source: Any, target: Any) -> Any:
            leaves = [
                held[name] if name is not None else leaf
                for name, leaf in zip(self.names, self.leaves, strict=True)
            ]
            return call(jax.tree_util.tree_unflatten(self.structure, leaves), source, target)

        return run

    def compute(self, weights: Arrays, ids: Ids) -> Any:
        held = {name: jnp.asarray(weights[name], jnp.float64) for name in self.shapes}
        return self.call(held, *(jnp.asarray(part, jnp.int32) for part in ids))


def subject_of(given: str, model: Any, params: Any = None) -> Subject:
    """What can be searched: a module, an NNX module, a callable tree, a function with its tree."""
    if isinstance(model, nn.Module):
        return TorchSubject(given, model)
    if isinstance(model, nnx.Module):
        model.eval()
        graph, state = nnx.split(model)
        return TreeSubject(
            given, lambda state, *ids: nnx.merge(graph, state)(*ids), nnx.to_pure_dict(state)
        )
    if params is not None:
        return TreeSubject(given, model, params)
    if callable(model) and not jax.tree_util.all_leaves([model]):
        return TreeSubject(given, lambda tree, *ids: tree(*ids), model)
    raise UserError(
        f"{given} is a function whose weights cannot be set; return a module, a pytree that can be "
        "called, or (function of (params, source, target), params)"
    )


def _is_weight(leaf: Any) -> bool:
    return (
        hasattr(leaf, "dtype")
        and jnp.issubdtype(leaf.dtype, jnp.floating)
        and (math.prod(leaf.shape) > 0)
    )


def _name(path: tuple[Any, ...]) -> str:
    """A leaf's name as files have it: the keys on the way, dots between them."""
    keys = (getattr(k, "key", getattr(k, "name", getattr(k, "idx", None))) for k in path)
    return ".".join(map(str, keys))
