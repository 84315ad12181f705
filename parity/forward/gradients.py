"""Loss per token and every gradient of either twin, by canonical name."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import torch

import flax_transformer
import torch_transformer
from flax_transformer.step import objective as flax_objective
from flax_transformer.weights import fill, skeleton, variables
from torch_transformer.step import objective as torch_objective
from torch_transformer.weights import tensors
from transformer_spec import to_torch, trained_names

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
Gradients = dict[str, np.ndarray]


def torch_gradients(
    model: torch_transformer.Transformer,
    arrays: Arrays,
    tokens: int,
    smoothing: float = 0.0,
    dropout: torch_transformer.Dropout | None = None,
) -> tuple[float, Gradients]:
    """Of source (B, S), decoder input and wanted output (B, T), ``tokens`` of which count.

    What the loss does not reach has zeros, as in JAX: a path that is lost on one side shows.
    """
    place = next(model.parameters()).device
    ids = [torch.from_numpy(np.asarray(x, np.int64)).to(place) for x in arrays[1:]]
    parts = model.as_source(arrays[0]), *ids
    model.zero_grad()
    loss = torch_objective(model, *parts, smoothing=smoothing, dropout=dropout) / tokens
    loss.backward()
    held = tensors(model)
    found = {name: _gradient(held[name]) for name in trained_names(model.config)}
    return float(loss.detach()), found


def _gradient(weight: torch.Tensor) -> np.ndarray:
    found = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return found.detach().cpu().numpy()


def flax_gradients(
    model: flax_transformer.Transformer,
    arrays: Arrays,
    tokens: int,
    smoothing: float = 0.0,
    dropout: flax_transformer.Dropout | None = None,
    compiled: bool = False,
) -> tuple[float, Gradients]:
    """The same in Flax, on JAX's default device; compiling pays off for large models alone."""
    parts = model.as_source(arrays[0]), *(jnp.asarray(x, jnp.int32) for x in arrays[1:])
    bones = skeleton(model)

    def mean_loss(held: Mapping[str, jax.Array]) -> jax.Array:
        twin = fill(bones, held)
        return flax_objective(twin, *parts, smoothing=smoothing, dropout=dropout) / tokens

    held = {name: variable[...] for name, variable in variables(model).items()}
    run = jax.value_and_grad(mean_loss)
    loss, found = (jax.jit(run) if compiled else run)(held)
    named = dict(to_torch(name, np.asarray(g)) for name, g in found.items())
    return float(loss), {name: named[name] for name in trained_names(model.config)}
