"""The JAX backend's own programs for TPU chips that are not there, from shapes alone.

Weights are shapes (jax.ShapeDtypeStruct), so that nothing of a model's size is ever made.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from flax_transformer import decoding
from flax_transformer.model import Transformer
from flax_transformer.precision import full_precision
from flax_transformer.step import Programs, ProgramSettings
from flax_transformer.weights import fill, variables
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Search, longest_output
from transformer_spec import TransformerConfig, flax_name, trained_names

BATCH_AXIS = "batch"
Shapes = dict[str, jax.ShapeDtypeStruct]


class Program(NamedTuple):
    """A program to trace; ``held`` bytes stay on the chip while it runs and are no argument."""

    name: str
    trace: Callable[[], Any]
    held: int


def shapes(config: TransformerConfig, sharding: Sharding) -> tuple[Shapes, Shapes]:
    """The shapes of the trained and of the frozen weights, every chip holding all of them."""
    trained = {flax_name(name) for name in trained_names(config)}
    held = {
        name: placed(variable.get_value(), sharding)
        for name, variable in variables(Transformer.skeleton(config)).items()
    }
    return (
        {name: shape for name, shape in held.items() if name in trained},
        {name: shape for name, shape in held.items() if name not in trained},
    )


class Task(NamedTuple):
    """What is compiled: a config's programs for a batch of B rows of ``length`` tokens."""

    config: TransformerConfig
    batch: int
    length: int
    beam: int
    devices: list[Any]


def placed(array: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def chips_of_v5e(count: int) -> list[Any]:
    """The 1 or 4 chips of a v5e slice, as Google's TPU compiler describes them."""
    if count == 1:
        bounds = {"chips_per_host_bounds": (1, 1, 1)}
        return topologies.get_topology_desc("v5e:1x1", platform="tpu", **bounds).devices
    return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices


def programs(task: Task) -> Iterator[Program]:
    """Forward pass, both programs of a training step, decoding loop.

    The rows of the batch are divided among the chips; every chip holds all weights.
    """
    mesh = Mesh(np.array(task.devices), (BATCH_AXIS,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    divided = NamedSharding(mesh, PartitionSpec(BATCH_AXIS))
    ours = Programs(task.config, ProgramSettings.of(TrainingSettings(device="cpu")))
    trained, frozen = shapes(task.config, everywhere)
    ids = jax.ShapeDtypeStruct((task.batch, task.length), np.int32, sharding=divided)
    moments = 2 * byte_count(trained)

    def forward(weights, source, target):
        return fill(ours.skeleton, weights)(source, target)

    yield Program("forward", lambda: jax.jit(forward).trace(trained | frozen, ids, ids), 0)
    arguments = trained, frozen, (ids, ids, ids), np.uint32(1), 1
    gradients = jax.jit(ours.pure_gradients)
    yield Program("gradients", lambda: gradients.trace(*arguments), moments)
    update, state = ours.update, ours.optimizer.init
    state = jax.tree.map(lambda a: placed(a, everywhere), jax.eval_shape(state, trained))
    optimizer = trained, state, trained, 1e-3
    yield Program("optimizer", lambda: update.trace(*optimizer), byte_count(frozen))
    yield Program("decoding", lambda: decoding_loop(ours, task, everywhere, divided), 0)


@full_precision
def decoding_loop(ours: Programs, task: Task, everywhere: Sharding, divided: Sharding) -> Any:
    """The search as flax_transformer.decoding runs it, traced."""
    source, search = np.ones((task.batch, task.length), np.int32), Search(beam=task.beam)
    inputs = decoding.make_task(Transformer.skeleton(task.config), source, search)
    inputs = inputs._replace(
        source=placed(inputs.source, divided),
        limits=placed(inputs.limits, divided),
        never=placed(inputs.never, everywhere),
    )
    graph, state = ours.skeleton
    weights = jax.tree.map(lambda shape: placed(shape, everywhere), state)
    longest = longest_output(task.length, task.config, search)
    trace = decoding.compiled.trace
    if task.beam > 1:
        return trace(decoding.beam_search, graph, weights, inputs, longest, task.beam)
    return trace(decoding.chain_search, graph, weights, inputs, longest, search.nbest, search.top_k)


def byte_count(shapes: Shapes) -> int:
    return sum(shape.size * shape.dtype.itemsize for shape in shapes.values())
