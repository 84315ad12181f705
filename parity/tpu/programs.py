"""The JAX backend's own programs for TPU chips that are not there, from shapes alone.

Weights are shapes (jax.ShapeDtypeStruct), so that nothing of a model's size is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from flax_transformer import decoding, mesh_decoding
from flax_transformer.model import Transformer
from flax_transformer.placement import ROWS, WHOLE, OneDevice, OnMesh
from flax_transformer.precision import full_precision
from flax_transformer.step import Programs, ProgramSettings
from flax_transformer.weights import fill, variables
from training_recipe.distributed.mesh import AXES
from training_recipe.distributed.mesh import Mesh as Shape
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Search, output_room
from transformer_spec import TransformerConfig, flax_name, trained_names

Shapes = dict[str, jax.ShapeDtypeStruct]


class Program(NamedTuple):
    """A program to trace; ``held`` bytes stay on the chip while it runs and are no argument."""

    name: str
    trace: Callable[[], Any]
    held: int


class Task(NamedTuple):
    """What is compiled: a config's programs for a batch of B rows of ``length`` tokens.

    A source of features has as many frames as the model takes.
    """

    config: TransformerConfig
    settings: TrainingSettings
    batch: int
    length: int
    beam: int
    devices: list[Any]
    mesh: Shape

    @property
    def source(self) -> np.ndarray:
        """A source of ones, which takes no memory."""
        config = self.config
        frames = self.batch, 2 * config.max_source_length, config.feature_dim
        if config.feature_dim:
            return np.broadcast_to(np.float32(1), frames)
        return np.broadcast_to(np.int32(1), (self.batch, self.length))


class Chips:
    """Where arrays lie on chips that are not there, as the backend would place them."""

    def __init__(self, devices: list[Any], shape: Shape) -> None:
        mesh = Mesh(np.array(devices).reshape(shape.data, shape.fsdp), AXES)
        self.place = OnMesh(mesh) if mesh.size > 1 else OneDevice(devices[0])

    def sharding(self, spec: PartitionSpec) -> Sharding:
        """How an array lies that is cut in some way."""
        if isinstance(self.place, OnMesh):
            return NamedSharding(self.place.mesh, spec)
        return SingleDeviceSharding(self.place.device)

    def weight(self, array: Any) -> jax.ShapeDtypeStruct:
        """A weight or a moment, cut as the backend cuts it."""
        cut = self.place.cut(array.shape) if isinstance(self.place, OnMesh) else WHOLE
        return self.placed(array, cut)

    def placed(self, array: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        """The shape of an array that lies so."""
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=self.sharding(spec))


def shapes(config: TransformerConfig, place: Callable[[Any], Any]) -> tuple[Shapes, Shapes]:
    """The shapes of the trained and of the frozen weights, each as ``place`` has it."""
    trained = {flax_name(name) for name in trained_names(config)}
    held = {
        name: place(variable.get_value())
        for name, variable in variables(Transformer.skeleton(config)).items()
    }
    return (
        {name: shape for name, shape in held.items() if name in trained},
        {name: shape for name, shape in held.items() if name not in trained},
    )


def chips_of(topology: str) -> list[Any]:
    """The chips of a v5e slice, as Google's TPU compiler describes them: 1x1, 2x2, 4x4 ..."""
    one = {"chips_per_host_bounds": (1, 1, 1)} if topology == "1x1" else {}
    return list(topologies.get_topology_desc(f"v5e:{topology}", platform="tpu", **one).devices)


def programs(task: Task) -> Iterator[Program]:
    """Forward pass, both programs of a training step, decoding loop.

    On several chips they are those of a mesh: rows are divided among all chips, weights as the mesh
    cuts them; forward pass and decoding have whole weights.
    """
    chips = Chips(task.devices, task.mesh)
    ours = Programs(task.config, ProgramSettings.of(task.settings), chips.place)
    trained, frozen = shapes(task.config, chips.weight)
    whole = shapes(task.config, lambda array: chips.placed(array, WHOLE))
    ids = jax.ShapeDtypeStruct((task.batch, task.length), np.int32, sharding=chips.sharding(ROWS))
    read = chips.placed(task.source, ROWS)

    def forward(weights, source, target):
        return fill(ours.skeleton, weights)(source, target)

    arguments = whole[0] | whole[1], read, ids
    yield Program("forward", lambda: jax.jit(forward).trace(*arguments), 0)
    state = jax.tree.map(chips.weight, jax.eval_shape(ours.optimizer.init, trained))
    parts = trained, frozen, (read, ids, ids), np.uint32(1), 1
    moments = 2 * byte_count(trained)
    yield Program("gradients", lambda: ours.gradients.trace(*parts), moments)
    optimizer = trained, state, trained, 1e-3
    yield Program("optimizer", lambda: ours.update.trace(*optimizer), byte_count(frozen))
    yield Program("decoding", lambda: decoding_loop(ours, task, chips), 0)


@full_precision
def decoding_loop(ours: Programs, task: Task, chips: Chips) -> Any:
    """The search as the backend runs it, traced."""
    source, search = task.source, Search(beam=task.beam)
    graph, state = ours.skeleton
    weights = jax.tree.map(lambda shape: chips.placed(shape, WHOLE), state)

    def program(find: Any, graph: Any, weights: Any, inputs: Any, *settings: Any) -> Any:
        rows = [ROWS if name in mesh_decoding.OF_ROWS else WHOLE for name in inputs._fields]
        inputs = type(inputs)(
            *(
                chips.placed(np.asarray(value), spec) if hasattr(value, "shape") else value
                for value, spec in zip(inputs, rows, strict=True)
            )
        )
        if isinstance(chips.place, OnMesh):
            traced = mesh_decoding.program_of(False).trace
            return traced(chips.place.mesh, find, graph, weights, inputs, *settings)
        return decoding.compiled.trace(find, graph, weights, inputs, *settings)

    model, length = nnx.merge(graph, weights), output_room(source.shape[1], task.config, search)
    return decoding.found(model, decoding.make_task(model, source, search), search, length, program)


def byte_count(shapes: Any) -> int:
    """What arrays of these shapes take on one chip."""
    return sum(
        int(np.prod(shape.sharding.shard_shape(shape.shape))) * shape.dtype.itemsize
        for shape in jax.tree.leaves(shapes)
    )
