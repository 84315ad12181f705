"""Decoding on a mesh: every device finds the outputs of rows of its own, and waits for no other."""

import functools
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from flax_transformer.cpu.programs import BARRIERS_STAY
from flax_transformer.decoding import check_decoding, found, make_task, searched
from flax_transformer.model import Transformer
from flax_transformer.outputs import Outputs, Task
from flax_transformer.placement import ROWS, WHOLE, OnMesh, place_of
from flax_transformer.precision import full_precision
from training_recipe.batching.rows import filled_up
from training_recipe.distributed.processes import Processes, World
from training_recipe.searching.search import Hypothesis, Search, hypotheses, output_room
from transformer_spec.ids import given_source

OF_ROWS = ("source", "limits", "numbers", "reach")
Found = list[tuple[int, list[Hypothesis]]]


def decode_in(
    world: World, device: str, model: Transformer, source: np.ndarray, search: Search
) -> list[list[Hypothesis]]:
    """The n best outputs of each row of ``source`` (B, S), found by all devices of a world.

    The model's weights lie whole on every device. Every process calls this with equal arguments
    and gets all outputs; an error of one is an error of all.
    """
    place = place_of(world.mesh, device)
    assert isinstance(place, OnMesh)
    return decode_on(place, world.processes, model, source, search)


def decode_on(
    place: OnMesh, processes: Processes, model: Transformer, source: np.ndarray, search: Search
) -> list[list[Hypothesis]]:
    """The same on a place that is known."""
    with processes.together():
        own = decode_rows(place, model, source, search)
    rows = dict(row for found in processes.gather(own) for row in found)
    return [rows[number] for number in range(len(source))]


@full_precision
def decode_rows(place: OnMesh, model: Transformer, source: np.ndarray, search: Search) -> Found:
    """The outputs of those rows of ``source`` (B, S) that this process has, each with its number.

    The model's weights lie whole on every device of the mesh.
    """
    source = given_source(source, model.config)
    check_decoding(model, source, search)
    rows = filled_up(source, place.rows, model.config.pad_id)
    length = output_room(source.shape[1], model.config, search)
    program = functools.partial(_run, place)
    outputs = found(model, make_task(model, rows, search), search, length, program)
    numbers = _own_numbers(outputs.tokens)
    tokens, sums, lengths = map(_own_rows, outputs)
    rows = hypotheses(tokens, sums, lengths, model.config, search)
    return [(n, row) for n, row in zip(numbers, rows, strict=True) if n < len(source)]


def _run(place: OnMesh, search: Any, graph: Any, weights: Any, task: Task, *settings: Any) -> Any:
    program = program_of(place.device.platform == "cpu")
    return program(place.mesh, search, graph, weights, _placed(place, task), *settings)


@functools.cache
def program_of(on_processor: bool) -> Any:
    """The compiled search of a mesh, whose first argument that is."""
    options = BARRIERS_STAY if on_processor else None
    return jax.jit(_searched, static_argnums=(0, 1, 2, 5, 6, 7), compiler_options=options)


def _searched(
    mesh: Mesh, search: Any, graph: Any, weights: Any, task: Task, length: int, N: int, *more: Any
) -> Outputs:
    """``searched`` by every device for its own rows, without a word to the others."""

    def own(weights: Any, task: Task) -> Outputs:
        return searched(search, graph, weights, task, length, N, *more)

    rows: list[Any] = [ROWS if name in OF_ROWS else WHOLE for name in Task._fields]
    given = WHOLE, Task(*rows)
    mapped = jax.shard_map(own, mesh=mesh, in_specs=given, out_specs=ROWS, check_vma=False)
    return mapped(weights, task)


def _placed(place: OnMesh, task: Task) -> Task:
    """The task with the rows of each device on it."""

    def put(name: str, value: Any) -> Any:
        if value is None:
            return None
        array = np.asarray(value)
        return place.rows_of(array) if name in OF_ROWS else place.everywhere(array)

    return Task(*(put(name, getattr(task, name)) for name in Task._fields))


def _own_rows(array: Array) -> np.ndarray:
    """The rows of an array that lie on this process's devices, in their order."""
    return np.concatenate([np.asarray(part.data) for part in _own_parts(array)])


def _own_numbers(array: Array) -> list[int]:
    """The numbers of these rows."""
    return [row for part in _own_parts(array) for row in range(*part.index[0].indices(len(array)))]


def _own_parts(array: Array) -> list[Any]:
    return sorted(array.addressable_shards, key=lambda part: part.index[0].start or 0)
