"""{name: NumPy array} <-> model, line for line the twin of torch_transformer/weights.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from transformer_spec import (
    UserError,
    check_arrays,
    check_names,
    flax_name,
    initial_weight,
    to_flax,
    weight_shapes,
)

if TYPE_CHECKING:
    from flax_transformer.model import Transformer

Skeleton = tuple[nnx.GraphDef, nnx.State]

HEADING = "these weights do not fit the Flax model"
NO_NUMBERS = "the model is a skeleton; initialise(model, seed) or load_weights give it its numbers"


def variables(model: Transformer) -> dict[str, nnx.Variable]:
    """Every stored weight by its Flax name, in the inventory's order.

    A model that holds others, as one with an adapter does, is a UserError.
    """
    held = {_joined(path): leaf for path, leaf in nnx.to_flat_state(nnx.state(model))}
    held = {name: leaf for name, leaf in held.items() if not isinstance(leaf, nnx.RngState)}
    names = [flax_name(name) for name in weight_shapes(model.config)]
    check_names(held, names)
    return {name: held[name] for name in names}


def _joined(path: tuple) -> str:
    return ".".join(map(str, path))


def weights(model: Transformer) -> dict[str, np.ndarray]:
    """{Flax name: NumPy array} of every stored weight; tied weights appear once.

    A model that holds other weights than its config says is a UserError.
    """
    return {name: array.copy() for name, array in arrays(model).items()}


def arrays(model: Transformer) -> dict[str, np.ndarray]:
    """The same, in the model's own memory where that is the host's."""
    held = {name: variable.get_value() for name, variable in variables(model).items()}
    if any(isinstance(value, jax.ShapeDtypeStruct) for value in held.values()):
        raise UserError(NO_NUMBERS)
    return {name: np.asarray(value) for name, value in held.items()}


def load_weights(
    model: Transformer,
    weights: Mapping[str, np.ndarray],
    put: Callable[[np.ndarray], Array] = jnp.array,
) -> None:
    """Set every weight to a copy of an array; wrong names, shapes or dtypes are one UserError.

    ``put`` makes the copies, where they are to lie.
    """
    held = variables(model)
    shapes = {name: tuple(variable.shape) for name, variable in held.items()}
    check_arrays(weights, shapes, next(iter(held.values())).dtype, HEADING)
    set_weights(model, lambda name: put(weights[flax_name(name)]))


def initialise(model: Transformer, seed: int) -> None:
    """Set every weight to that of ``initial_weights(config, seed)``.

    May be traced: the numbers are then drawn when the program runs, and are no constants of it.
    """
    shapes, held = weight_shapes(model.config), variables(model)
    traced = isinstance(jnp.zeros(()), jax.core.Tracer)

    def draw(name: str) -> np.ndarray:
        dtype = held[flax_name(name)].dtype
        return to_flax(name, initial_weight(model.config, name, shapes[name], seed, dtype))[1]

    def drawn_later(name: str) -> Array:
        variable = held[flax_name(name)]
        shape = jax.ShapeDtypeStruct(variable.shape, variable.dtype)
        return jax.pure_callback(lambda: draw(name), shape)

    set_weights(model, drawn_later if traced else draw)


def set_weights(model: Transformer, read: Callable[[str], np.ndarray | Array]) -> None:
    """Set every weight to the array that ``read(canonical name)`` hands over, one at a time.

    The array is laid out as in Flax, and the weight may lie in its memory.
    """
    held = variables(model)
    for name in weight_shapes(model.config):
        held[flax_name(name)].set_value(jnp.asarray(read(name)))


def set_dtype(model: Transformer, dtype: DTypeLike) -> None:
    """Set the number format of a skeleton; one that JAX would replace is a UserError."""
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise UserError(
            f"JAX makes no {np.dtype(dtype)} arrays; call "
            'jax.config.update("jax_enable_x64", True) before the model is made'
        )
    for variable in variables(model).values():
        variable.set_value(jax.ShapeDtypeStruct(variable.shape, dtype))


def skeleton(model: Transformer) -> Skeleton:
    """The model without its numbers: structure and shapes only."""
    graph, state = nnx.split(model)
    return graph, jax.eval_shape(lambda: state)


def fill(skeleton: Skeleton, weights: Mapping[str, Array]) -> Transformer:
    """The model of a skeleton around {Flax name: array}; may be traced."""
    graph, state = skeleton
    leaves = [
        (path, leaf.replace(weights[_joined(path)])) for path, leaf in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(leaves))
