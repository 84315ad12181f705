"""{name: NumPy array} <-> model, line for line the twin of torch_transformer/weights.py."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from convert.checkpoints import load_weights_of
from flax_transformer.model import Transformer
from transformer_spec import check_arrays, flax_name, to_flax, weight_shapes

Skeleton = tuple[nnx.GraphDef, nnx.State]

HEADING = "these weights do not fit the Flax model"


def variables(model: Transformer) -> dict[str, nnx.Variable]:
    """Every stored weight by its Flax name, in the inventory's order."""
    held = {_joined(path): leaf for path, leaf in nnx.to_flat_state(nnx.state(model))}
    return {flax_name(name): held[flax_name(name)] for name in weight_shapes(model.config)}


def _joined(path: tuple) -> str:
    return ".".join(map(str, path))


def weights(model: Transformer) -> dict[str, np.ndarray]:
    """{Flax name: NumPy array} of every stored weight; tied weights appear once."""
    return {name: np.array(variable[...]) for name, variable in variables(model).items()}


def load_weights(model: Transformer, weights: Mapping[str, np.ndarray]) -> None:
    """Overwrite every weight; faults in names, shapes or dtypes are one UserError."""
    held = variables(model)
    shapes = {name: variable.shape for name, variable in held.items()}
    check_arrays(weights, shapes, next(iter(held.values())).dtype, HEADING)
    for name, variable in held.items():
        variable.set_value(jnp.array(weights[name]))


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


def load(folder: str | Path) -> Transformer:
    """The model of a run, a checkpoint or a converted folder, whichever framework wrote it."""
    config, canonical = load_weights_of(Path(folder))
    model = Transformer(config, dtype=next(iter(canonical.values())).dtype.type)
    load_weights(model, dict(to_flax(*item) for item in canonical.items()))
    return model
