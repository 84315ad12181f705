"""What benchmarks/scale.py times: steps of one device, plain, through a mesh of one, and as before.

Nothing of ours is imported before it is known whose code it is to be.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.turns import JAX, TORCH, Turn, use_cores

MESH, BEFORE = "on a mesh of one", "before"
LEARNING_RATE = 1e-3
NAMES = [
    f"{own}{kind}" for own in (JAX, TORCH) for kind in ("", f", {MESH}", f", {BEFORE}")
]  # fmt: skip


def make(name: str, task: dict[str, Any]) -> tuple[str, Turn]:
    """Version and turn of a contender; ``task`` has size, steps of a turn, threads and folder."""
    use_cores(task["threads"])
    if name.endswith(BEFORE):
        sys.path.insert(0, task["before"])
        check_code_of(task["before"])
    version, world, make_backend = (jax_backend if name.startswith(JAX) else torch_backend)(
        name.endswith(MESH), task["threads"]
    )
    from benchmarks.scale_sizes import batches_of, config_of
    from training_recipe.options.settings import TrainingSettings
    from twinformer.training.states import first_state

    settings, config = TrainingSettings(device="cpu"), config_of(task["size"])
    backend = make_backend(config, settings, first_state(config, settings), *world)
    return version, turn_of(backend, batches_of(task["size"], config), task["steps"])


def check_code_of(folder: str) -> None:
    """End the process where it would time the code of another folder."""
    import training_recipe

    if not str(training_recipe.__file__).startswith(folder):
        raise SystemExit(f"{training_recipe.__file__} is not the code of {folder}")


def turn_of(backend: Any, batches: list[Any], steps: int) -> Turn:
    """So many steps; their time is that of the processor, whatever else the machine does."""
    count = [0]

    def turn(number: int) -> dict[str, Any]:
        began, last = time.process_time(), None
        for _ in range(steps):
            count[0] += 1
            last = backend.train_step([batches[count[0] % len(batches)]], count[0], LEARNING_RATE)
        assert last is not None
        loss = float(last.loss_sum) + 0 * float(last.gradient_norm)  # waits for the last step
        return {"loss": loss, "cpu": (time.process_time() - began) / steps, "done": {}}

    return turn


def jax_backend(on_mesh: bool, threads: int) -> tuple[str, tuple, Callable]:
    import jax

    from flax_transformer import step
    from flax_transformer.process import prepare_process

    prepare_process("cpu")
    if on_mesh:
        from benchmarks.scale_counts import on_jax_mesh

        step.place_of = lambda mesh, device: on_jax_mesh(mesh)
    return f"jax {jax.__version__}", (), step.make_backend


def torch_backend(on_mesh: bool, threads: int) -> tuple[str, tuple, Callable]:
    import torch

    torch.set_num_threads(threads)
    from torch_transformer import step
    from torch_transformer.process import prepare_process

    prepare_process("cpu")
    world = ()
    if on_mesh:
        from benchmarks.scale_counts import gloo_of_one, on_torch_mesh

        world = (gloo_of_one(),)
        step.placement_of = on_torch_mesh
    return f"torch {torch.__version__}", world, step.make_backend
