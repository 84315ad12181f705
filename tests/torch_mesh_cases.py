"""What PyTorch computes on meshes of 1, 2, 3 and 4 processes of this machine.

    python torch_mesh_cases.py FOLDER [thorough]

imports once, then forks the processes of each number in turn; what each found is in
FOLDER/COUNT-INDEX.pickle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch._dynamo  # which FSDP2 imports when it is first used, here before the fork
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor.debug import CommDebugMode

from parity.twins.cases import config_of
from torch_transformer import placement
from torch_transformer.dropout import Dropout
from torch_transformer.processes import join
from torch_transformer.step import TorchBackend, make_backend
from training_recipe.backend import Checkpoint
from training_recipe.batching.batches import Batch
from training_recipe.batching.rows import share
from training_recipe.distributed.joining import Joining
from training_recipe.distributed.mesh import read_mesh
from training_recipe.distributed.processes import Processes, World
from training_recipe.options.schedule import learning_rate
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Search
from transformer_spec import TransformerConfig, UserError
from twinformer.training.states import first_state

ALL = "thorough" in sys.argv[2:]
STEPS, HALF, FURTHER = 20 if ALL else 10, 5, 8
ROWS = (10, 7, 1)  # of three batches that take turns; none is a multiple of 4
CONFIG = config_of(
    {"num_encoder_layers": 1, "num_decoder_layers": 1, "norm_position": "pre", "final_norm": True}
    | {"tied_embeddings": "target_output", "output_bias": "frozen", "encoder_positions": "learned"}
    | {"hidden_dim": 6, "num_heads": 2, "dropout": 0.2, "attention_dropout": 0.1}
    | {"activation_dropout": 0.1}
)
RELATIVE = {
    name: dataclasses.replace(
        CONFIG, norm="rms", gated_ffn=True, encoder_positions="relative",
        decoder_positions="relative", final_dropout=0.1, relative_per_layer=of_layers,
    )
    for name, of_layers in (("shared", False), ("of layers", True))
}  # fmt: skip
HEARING = dataclasses.replace(
    CONFIG, source_vocab_size=0, feature_dim=4, max_source_length=6, encoder_positions="frozen",
    key_bias=False,
)  # fmt: skip
SETTINGS = TrainingSettings(
    dtype="float64", device="cpu", warmup_steps=4, peak_lr=3e-3, weight_decay=0.1, clip_norm=0.5
)
LESS = dataclasses.replace(SETTINGS, gradient_checkpointing=True, ema_decay=0.9)
RUNS = {"plain": SETTINGS, "less": LESS}
# What is trained on each mesh; one process is what all are compared with.
MESHES = {
    1: {"data=1": list(RUNS)},
    2: {"data=2": ["plain"], "fsdp=2": ["plain"]},
    3: {"data=3": ["plain"]},
    4: {"data=4": ["plain"], "fsdp=4": ["plain"], "data=2,fsdp=2": ["less"]},
}
# What is much like three and four.
THOROUGH = {"data=2", "fsdp=2", "data=4"}
RESUMED = {("data=3", "plain"), ("fsdp=4", "plain"), ("data=2,fsdp=2", "less")}
BEAM = Search(beam=2, nbest=2)


def batch(number: int) -> Batch:
    """Rows of other lengths for every number."""
    rows, draw = ROWS[number % 3], np.random.default_rng(number)
    sources, targets = np.zeros((rows, 7), np.int32), np.zeros((rows, 5), np.int32)
    for source, target in zip(sources, targets, strict=True):
        for row, vocabulary in ((source, 23), (target, 19)):
            length = draw.integers(1, len(row), endpoint=True)
            row[:length] = draw.integers(4, vocabulary, length)
    start = np.full((rows, 1), CONFIG.decoder_start_id, np.int32)
    return Batch(sources, np.concatenate([start, targets[:, :-1]], 1), targets)


def step_batches(step: int) -> list[Batch]:
    """Three in every fourth step, else one."""
    return [batch(step + 100 * part) for part in range(1 if step % 4 else 3)]


def train(backend: TorchBackend, first: int, last: int) -> np.ndarray:
    """Loss per token and gradient norm of each step, (steps, 2)."""
    found = []
    for step in range(first, last + 1):
        batches = [read(part, backend) for part in step_batches(step)]
        result = backend.train_step(batches, step, learning_rate(step, backend.settings))
        found.append((float(result.loss_sum) / result.tokens, float(result.gradient_norm)))
    return np.array(found)


def read(batch: Batch, backend: TorchBackend) -> Batch:
    """The batch, with 11 frames of features for each source where the model reads those."""
    M = backend.config.feature_dim
    if not M:
        return batch
    draw = np.random.default_rng(int(batch.source.sum()))
    return dataclasses.replace(batch, source=draw.normal(size=(len(batch.source), 11, M)))


def beginning(settings: TrainingSettings, config: TransformerConfig = CONFIG) -> Checkpoint:
    return first_state(config, settings)


def gradients(backend: TorchBackend, step: int) -> dict[str, np.ndarray]:
    """The gradients of a step's batches, before clipping."""
    batches = step_batches(step)
    backend.gradients(batches, step, sum(part.tokens for part in batches))
    held = {name: part.grad for name, part in backend.trained.items() if part.grad is not None}
    return dict(backend.readable(held))


def judged(backend: TorchBackend) -> dict[str, Any]:
    """What is asked of a model between steps."""
    outputs = [backend.decode(batch(number).source, BEAM) for number in (1, 2)]
    return {
        "losses": [backend.evaluate(batch(number)) for number in range(3)],
        "encoded": backend.encode(batch(0).source),
        "decoded": [[[best.ids for best in row] for row in rows] for rows in outputs],
    }


def whole_run(settings: TrainingSettings, world: World, resumed: bool) -> dict[str, Any]:
    """Steps with a look at the model after five, from where some are done again."""
    backend = make_backend(CONFIG, settings, beginning(settings), world)
    found: dict[str, Any] = {"gradients": gradients(backend, 4)}
    first = train(backend, 1, HALF)
    found["half"], found["state"] = judged(backend), backend.state()
    second = train(backend, HALF + 1, FURTHER)
    found["further"] = backend.state() if resumed else None
    found["curve"] = np.concatenate([first, second, train(backend, FURTHER + 1, STEPS)])
    found["end"], found["bytes"] = judged(backend), held_bytes(backend)
    if resumed:
        again = make_backend(CONFIG, settings, found["state"], world)
        found["taken over"] = again.state()
        found["resumed"] = train(again, HALF + 1, FURTHER)
        found["further again"] = again.state()
    return found


def held_bytes(backend: TorchBackend) -> int:
    """What a process holds of the trained weights and both moments."""
    states = backend.optimizer.state
    held = [
        states[part][key] for part in backend.trained.values() for key in ("exp_avg", "exp_avg_sq")
    ]
    return sum(tensor.untyped_storage().nbytes() for tensor in [*held, *backend.trained.values()])


def moved_state(state: Checkpoint, settings: TrainingSettings, world: World) -> dict[str, Any]:
    """A state of another mesh: what comes back of it, and the curve from there."""
    backend = make_backend(CONFIG, settings, state, world)
    return {"state": backend.state(), "curve": train(backend, HALF + 1, FURTHER)}


def few_steps(
    settings: TrainingSettings, world: World, config: TransformerConfig = CONFIG
) -> np.ndarray:
    backend = make_backend(config, settings, beginning(settings, config), world)
    first = train(backend, 1, 2)
    again = make_backend(config, settings, backend.state(), world)
    return np.concatenate([first, train(again, 3, 5)])


def collectives(world: World) -> dict[str, int]:
    """How many collectives of each kind a step asks for."""
    backend = make_backend(CONFIG, SETTINGS, beginning(SETTINGS), world)
    train(backend, 1, 1)
    with warnings.catch_warnings(), CommDebugMode() as counting:
        warnings.simplefilter("ignore")  # of hooks that count
        train(backend, 2, 2)
    return {str(kind): count for kind, count in counting.get_comm_counts().items()}


@contextlib.contextmanager
def masks_without_first_row(world: World) -> Iterator[None]:
    with mock.patch.object(Dropout, "elements_before", lambda self, x: 0):
        yield


@contextlib.contextmanager
def mean_of_means(world: World) -> Iterator[None]:
    plain, here = TorchBackend.add_gradients, world.processes

    def careless(self, batch, key, tokens):
        own, _ = share(batch, here.index, here.count)
        return plain(self, batch, key, max(1, own.tokens) * here.count)

    with mock.patch.object(TorchBackend, "add_gradients", careless):
        yield


@contextlib.contextmanager
def averaged_gradients(world: World) -> Iterator[None]:
    plain = FSDPModule.set_gradient_divide_factor
    count = world.processes.count
    with mock.patch.object(
        FSDPModule, "set_gradient_divide_factor", lambda self, factor: plain(self, factor * count)
    ):
        yield


@contextlib.contextmanager
def moments_in_another_order(world: World) -> Iterator[None]:
    plain = placement.Spread.own

    def turned(self, array, like):
        own = plain(self, array, like)
        return own.T.contiguous().T if own.ndim == 2 else own

    with mock.patch.object(placement.Spread, "own", turned):
        yield


@contextlib.contextmanager
def a_seed_of_its_own(world: World) -> Iterator[None]:
    plain, here = TorchBackend.add_gradients, world.processes

    def careless(self, batch, key, tokens):
        return plain(self, batch, key + here.index, tokens)

    with mock.patch.object(TorchBackend, "add_gradients", careless):
        yield


@contextlib.contextmanager
def nothing_changed(world: World) -> Iterator[None]:
    yield


MISTAKES: dict[str, Callable[[World], contextlib.AbstractContextManager[None]]] = {
    "none": nothing_changed,
    "masks without first row": masks_without_first_row,
    "mean of means": mean_of_means,
    "averaged gradients": averaged_gradients,
    "a seed of its own": a_seed_of_its_own,
    "moments in another order": moments_in_another_order,
}


def mistaken(settings: TrainingSettings, world: World) -> dict[str, np.ndarray]:
    found = {}
    for name, mistake in MISTAKES.items():
        with mistake(world):
            found[name] = few_steps(settings, world)
    return found


def told(processes: Processes) -> dict[str, Any]:
    """What processes tell each other."""
    later = [processes.largest(number * processes.index) for number in (1, -1)]
    found = {
        "gathered": processes.gather({"index": processes.index}),
        "broadcast": processes.broadcast(f"from {processes.index}"),
        "largest": [wait() for wait in later],
    }
    for what, block in (("together", fail_in_last), ("agree", disagree)):
        try:
            block(processes)
        except (UserError, ValueError) as error:
            found[what] = str(error)
    return found


def fail_in_last(processes: Processes) -> None:
    with processes.together():
        if processes.index == processes.count - 1:
            raise ValueError("no room on the disk")


def disagree(processes: Processes) -> None:
    processes.agree("the settings", min(processes.index, 1))


def abandoned(world: World) -> str:
    """What the first process hears when another one ends in the middle of a step."""
    backend = make_backend(CONFIG, SETTINGS, beginning(SETTINGS), world)
    train(backend, 1, 1)
    if not world.processes.first:
        os._exit(0)
    try:
        train(backend, 2, 3)
    except UserError as error:
        return str(error)
    return "nothing"


def found_by(world: World, thorough: bool) -> dict[str, Any]:
    """All that one of some processes finds."""
    found: dict[Any, Any] = {}
    processes, count = world.processes, world.processes.count
    for text, names in MESHES[count].items():
        for name in names if thorough or text not in THOROUGH else ():
            there = World(processes, read_mesh(text))
            found[text, name] = whole_run(RUNS[name], there, (text, name) in RESUMED)
    found["told"] = told(processes)
    if count in (1, 4):
        found["relative"] = {
            name: few_steps(
                LESS,
                World(processes, read_mesh("data=1" if count == 1 else "data=2,fsdp=2")),
                config,
            )
            for name, config in {**RELATIVE, "hearing": HEARING}.items()
        }
    if count == 1 and thorough:
        found["few"] = few_steps(SETTINGS, world)
    if count == 4:
        fully, hybrid = (World(processes, read_mesh(text)) for text in ("fsdp=4", "data=2,fsdp=2"))
        found["moved"] = moved_state(found["fsdp=4", "plain"]["state"], SETTINGS, hybrid)
        if thorough:
            found["mistakes"] = mistaken(SETTINGS, fully)
        found["collectives"] = {
            text: collectives(World(processes, read_mesh(text))) for text in MESHES[4]
        }
    return found


def process(index: int, count: int, port: int, folder: Path, thorough: bool) -> None:
    """What one process does, and what it leaves in the folder."""
    os.environ.update(environment(index, count, port))
    world = join(Joining(timeout=60))
    (folder / f"{count}-{index}.pickle").write_bytes(pickle.dumps(found_by(world, thorough)))
    if count == 2:
        (folder / "abandoned").write_text(abandoned(world))
    world.processes.leave()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def environment(index: int, count: int, port: int) -> dict[str, str]:
    """What torchrun says to a process."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": str(count)} | where


def fork(index: int, count: int, port: int, folder: Path, thorough: bool) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        torch.set_num_threads(1)
        process(index, count, port, folder, thorough)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main(folder: Path, thorough: bool) -> int:
    failed = 0
    for count in sorted(MESHES):
        port = free_port()
        children = [fork(index, count, port, folder, thorough) for index in range(count)]
        failed += sum(os.waitpid(child, 0)[1] != 0 for child in children)
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "thorough" in sys.argv[2:]))
