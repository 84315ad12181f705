"""What a training step sends between devices: of JAX read in the program, of PyTorch as asked for.

    python -m benchmarks.scale_counts BACKEND SIZE FILE MESH [MESH ...]

in a process of its own, which has as many simulated devices as JAX_NUM_CPU_DEVICES says.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.scale_sizes import batches_of, config_of
from training_recipe.distributed.mesh import AXES, Mesh, read_mesh
from training_recipe.distributed.processes import Alone, World
from training_recipe.options.settings import TrainingSettings
from twinformer.training.states import first_state

BYTES = {"f32": 4, "f64": 8, "s32": 4, "u32": 4, "bf16": 2, "pred": 1}
CALL = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all)(?:-start)?\(")
SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")
PAIRS = re.compile(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\])")
# Of torch.distributed, whose names changed, and what their arguments are called.
CALLS = {
    "all_gather_into_tensor": "all-gather",
    "all_gather_single": "all-gather",
    "reduce_scatter_tensor": "reduce-scatter",
    "reduce_scatter_single": "reduce-scatter",
    "all_reduce": "all-reduce",
}
GIVEN = ("input_tensor", "input", "tensor")
SETTINGS = TrainingSettings(device="cpu", dropout_rng="portable")
Sent = list[tuple[str, int, int]]  # kind, bytes that a device gives, devices that take part


def on_jax_mesh(mesh: Mesh) -> Any:
    """Cut over the first simulated devices, also where that is one."""
    import jax

    from flax_transformer.placement import OnMesh

    axes = (jax.sharding.AxisType.Auto,) * len(AXES)
    shape, devices = (mesh.data, mesh.fsdp), jax.devices()[: mesh.devices]
    return OnMesh(jax.make_mesh(shape, AXES, axes, devices=devices))


def on_torch_mesh(world: World, device: Any) -> Any:
    """Spread over a process group, also where that is of one process."""
    from torch_transformer.placement import Spread

    return Spread(device, world)


def gloo_of_one() -> World:
    """A process group of this process alone."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    return World(Alone())


def sent_by_jax(size: str, mesh: Mesh) -> Sent:
    """The collectives of both programs of a step."""
    from flax_transformer.step import make_backend

    config = config_of(size)
    world = World(Alone(), mesh)
    backend = make_backend(config, SETTINGS, first_state(config, SETTINGS), world)
    batch = batches_of(size, config)[0]
    given = backend.trained, backend.frozen, backend.arrays(batch), np.uint32(1), batch.tokens
    programs = [backend.programs.gradients.lower(*given)]
    state = backend.place.state(backend.programs.optimizer.init, backend.trained)
    update = backend.programs.update
    programs.append(update.lower(backend.trained, state, backend.trained, 1e-3))
    texts = [program.compile().as_text() for program in programs]
    return [each for text in texts for each in collectives(text, mesh.devices)]


def collectives(program: str, devices: int) -> Sent:
    """Every collective of a compiled program."""
    found = []
    for line in program.splitlines():
        call = CALL.search(line)
        if call is None:
            continue
        groups = PAIRS.search(line)
        members = devices
        if groups is not None and groups[2]:
            members = int(groups[2])
        elif groups is not None and groups[1]:
            members = len(groups[1].split(","))
        result = sum(
            BYTES[kind] * int(np.prod([int(n) for n in shape.split(",") if n] or [1]))
            for kind, shape in SHAPE.findall(call[1])
        )
        given = {"all-gather": result // members, "reduce-scatter": result * members}
        found.append((call[2], given.get(call[2], result), members))
    return found


def sent_by_torch(size: str, mesh: Mesh) -> Sent:
    """What the first of so many processes asks for; the others are not there, nor any answer."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from torch_transformer.step import make_backend

    class First(Alone):
        count = mesh.devices

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=mesh.devices)
    try:
        config = config_of(size)
        world = World(First(), mesh)
        backend = make_backend(config, SETTINGS, first_state(config, SETTINGS), world)
        batch = batches_of(size, config)[0]
        backend.train_step([batch], 1, 1e-3)
        with listening() as heard:
            backend.train_step([batch], 2, 1e-3)
        return heard
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def listening() -> Iterator[Sent]:
    """What a block gives to collectives."""
    import torch.distributed as dist

    heard: Sent = []

    def wrapped(plain: Any, kind: str) -> Any:
        parameters = inspect.signature(plain)

        @functools.wraps(plain)
        def call(*given: Any, **named: Any) -> Any:
            said = parameters.bind(*given, **named).arguments
            tensor = next(said[name] for name in GIVEN if name in said)
            heard.append((kind, tensor.nbytes, dist.get_world_size(said.get("group"))))
            return plain(*given, **named)

        return call

    with contextlib.ExitStack() as stack:
        for name, kind in CALLS.items():
            plain = getattr(dist, name, None)
            if plain is not None:
                stack.enter_context(mock.patch.object(dist, name, wrapped(plain, kind)))
        yield heard


def in_a_ring(sent: Sent) -> float:
    """Bytes that each device sends where all collectives go round a ring."""
    times = {"all-reduce": lambda n: 2 * (n - 1) / n, "all-gather": lambda n: n - 1.0}
    return sum(size * times.get(kind, lambda n: (n - 1) / n)(n) for kind, size, n in sent)


def summary(sent: Sent) -> dict[str, Any]:
    """How many collectives of each kind there are, and their bytes for each device."""
    real = [each for each in sent if each[2] > 1]
    kinds = sorted({kind for kind, _, _ in real})
    return {
        "collectives": {kind: sum(each[0] == kind for each in real) for kind in kinds},
        "operand_bytes": sum(size for _, size, _ in real),
        "sent_in_a_ring": in_a_ring(real),
    }


def main(backend: str, size: str, file: Path, meshes: list[str]) -> None:
    count = sent_by_jax if backend == "jax" else sent_by_torch
    found = {text: summary(count(size, read_mesh(text))) for text in meshes}
    file.write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
