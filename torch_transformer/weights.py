"""{name: NumPy array} <-> model, line for line the twin of flax_transformer/weights.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from training_recipe.arrays import Parts
from transformer_spec import UserError, check_arrays, check_names, initial_weight, weight_shapes

if TYPE_CHECKING:
    from torch_transformer.model import Transformer

HEADING = "these weights do not fit the PyTorch model"
NO_NUMBERS = "the model is a skeleton; initialise(model, seed) or load_weights give it its numbers"


def tensors(model: Transformer) -> dict[str, Tensor]:
    """Every stored weight by its canonical name, in the inventory's order.

    A model that holds others, as one with an adapter does, is a UserError.
    """
    held, names = model.state_dict(keep_vars=True), weight_shapes(model.config)
    check_names(held, names)
    return {name: held[name] for name in names}


def weights(model: Transformer) -> dict[str, np.ndarray]:
    """{canonical name: NumPy array} of every stored weight; tied weights appear once.

    A model that holds other weights than its config says is a UserError.
    """
    return {name: array.copy() for name, array in arrays(model).items()}


def arrays(model: Transformer) -> dict[str, np.ndarray]:
    """The same, in the model's own memory where that is the host's."""
    held = tensors(model)
    if any(tensor.is_meta for tensor in held.values()):
        raise UserError(NO_NUMBERS)
    return {name: to_array(tensor) for name, tensor in held.items()}


def load_weights(model: Transformer, weights: Mapping[str, np.ndarray]) -> None:
    """Set every weight to a copy of an array; wrong names, shapes or dtypes are one UserError."""
    held = tensors(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in held.items()}
    described = weights.headers if isinstance(weights, Parts) else weights
    check_arrays(described, shapes, numpy_dtype(next(iter(held.values())).dtype), HEADING)
    set_weights(model, lambda name: np.array(weights[name], order="C"))


def initialise(model: Transformer, seed: int) -> None:
    """Set every weight to that of ``initial_weights(config, seed)``."""
    shapes = weight_shapes(model.config)

    def draw(name: str) -> np.ndarray:
        return initial_weight(model.config, name, shapes[name], seed, np.float64)

    set_weights(model, draw)


@torch.no_grad()
def set_weights(model: Transformer, read: Callable[[str], np.ndarray]) -> None:
    """Set every weight to the array that ``read(name)`` hands over, one at a time.

    A skeleton's new tensors lie on the default device, in the arrays' own memory where they can.
    """
    new: dict[str, Tensor] = {}
    for name, tensor in tensors(model).items():
        value = to_tensor(read(name))
        if tensor.is_meta:
            new[name] = value.to(torch.get_default_device(), tensor.dtype)
        else:
            tensor.copy_(value)
    model.load_state_dict(new, strict=False, assign=True)


def to_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor, in the same memory unless that is read-only or not in row order."""
    array = np.require(array, requirements=["C", "W"])
    if array.dtype.name == "bfloat16":  # which PyTorch does not take from NumPy, nor gives it
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: Tensor) -> np.ndarray:
    """The tensor as an array, in the same memory where that is the host's."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(numpy_dtype(tensor.dtype))
    return tensor.numpy()


def numpy_dtype(dtype: torch.dtype) -> np.dtype:
    """The NumPy type of a PyTorch number format."""
    return np.dtype(str(dtype).removeprefix("torch."))


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """The PyTorch number format of a NumPy type."""
    return getattr(torch, dtype.name)
