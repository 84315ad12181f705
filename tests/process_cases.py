"""Runs of two real processes that torchrun starts, one after another.

    python process_cases.py torch|jax

Each process writes what came of every run to outcome-RANK.json.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_cases import SMALL

from training_recipe.backend import Backend
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import World
from training_recipe.options.flags import parse
from training_recipe.options.joining import joining_of
from transformer_spec import UserError
from twinformer.frameworks import joined, training_backend, twin
from twinformer.training import loop
from twinformer.training.loop import train

EXACT = [*SMALL, "--dtype", "float64"]
NAME = sys.argv[1] if len(sys.argv) > 1 else ""
STOPPED_AFTER = 7
TOO_SMALL = 9000  # bytes: less than the weights are
Hook = Callable[[Backend, int], None]


def nothing(backend: Any, step: int) -> None:
    """Leave a run alone."""


def stopped(backend: Any, step: int) -> None:
    """Send the second process a signal after a step."""
    if step == STOPPED_AFTER and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)


def poisoned(backend: Any, step: int) -> None:
    """Put a number that is none into what the second process holds."""
    if step == STOPPED_AFTER and os.environ["RANK"] == "1":
        name, held = next(iter(backend.trained.items()))
        if backend.name == "torch":
            held.data.fill_(float("nan"))
        else:
            backend.trained[name] = held * float("nan")


def disk_full(backend: Any, step: int) -> None:
    """Let the first process write no file as large as the weights."""
    if step == STOPPED_AFTER and os.environ["RANK"] == "0":
        limit_files(TOO_SMALL)


def limit_files(most: int) -> None:
    """The largest file that this process may write, in bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def run(world: World, arguments: list[str], hook: Hook = nothing) -> dict:
    """What came of one run in this process."""
    kind = twin(NAME, "step").__dict__["TorchBackend" if NAME == "torch" else "JaxBackend"]
    train_step = kind.train_step

    def hooked(self, batches, step, rate):
        result = train_step(self, batches, step, rate)
        hook(self, step)
        return result

    kind.train_step = hooked
    try:
        asked = parse([*arguments, "--backend", NAME])
        trained = train(asked, NAME, training_backend(NAME, world), world)
        return {"status": trained.status, "steps": trained.steps}
    except UserError as error:
        return {"error": str(error)}
    finally:
        kind.train_step = train_step
        limit_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])


def copied(world: World, name: str, copy: str) -> list[str]:
    """What goes on with a copy of a run."""
    if world.processes.first:
        shutil.copytree(Path("runs", name), Path("runs", copy), symlinks=True)
    world.processes.wait()
    return ["--resume", f"runs/{copy}"]


def outcomes(world: World) -> dict[str, dict]:
    """All runs, by name."""
    split = World(world.processes, Mesh(fsdp=2))
    mine = ["--seed", "5"] if os.environ["RANK"] == "1" else []
    found = {"whole": run(world, [*EXACT, "--name", "whole"])}
    found["stopped"] = run(world, [*EXACT, "--name", "stopped"], stopped)
    found["resumed"] = run(world, copied(world, "stopped", "resumed"))
    found["poisoned"] = run(world, [*EXACT, "--name", "poisoned"], poisoned)
    found["full"] = run(world, [*EXACT, "--name", "full"], disk_full)
    found["other"] = run(world, [*EXACT, "--name", "other", *mine])
    found["split"] = run(split, copied(world, "stopped", "split"))
    found["averaged"] = run(split, [*EXACT, "--name", "averaged", "--average", "2"])
    return found


if __name__ == "__main__":
    loop.draw_curves = lambda run: None  # which takes longer than small runs
    asked = parse([*EXACT, "--mesh", "data=2"]).invocation
    with joined(NAME, joining_of(asked, "cpu")) as world:
        found = outcomes(world)
    Path(f"outcome-{os.environ['RANK']}.json").write_text(json.dumps(found))
    sys.exit(0)
