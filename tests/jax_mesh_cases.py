"""What JAX computes on meshes of 1 to 4 simulated devices of one process.

    python jax_mesh_cases.py FILE [thorough]

compiles once for each mesh; what was found is in FILE, a pickle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 4)

from training_cases import keep_programs

from flax_transformer import decoding, placement
from flax_transformer import step as backends
from flax_transformer.device import model_on
from flax_transformer.dropout import Dropout
from flax_transformer.step import JaxBackend, Programs, make_backend
from parity.twins.cases import config_of
from training_recipe.backend import Checkpoint
from training_recipe.batching.batches import Batch
from training_recipe.distributed.mesh import read_mesh
from training_recipe.distributed.processes import Alone, World
from training_recipe.options.schedule import learning_rate
from training_recipe.options.settings import TrainingSettings
from training_recipe.searching.search import Search
from transformer_spec import TransformerConfig, initial_weights
from twinformer.training.states import first_state

ALL = "thorough" in sys.argv[2:]
STEPS, HALF = 20 if ALL else 10, 5
ROWS = 10  # no multiple of 3 or 4
CONFIG = config_of(
    {"num_encoder_layers": 1, "num_decoder_layers": 1, "norm_position": "pre", "final_norm": True}
    | {"tied_embeddings": "target_output", "output_bias": "frozen", "encoder_positions": "learned"}
    | {"hidden_dim": 8, "inner_dim": 12, "num_heads": 2, "source_vocab_size": 23}
    | {"target_vocab_size": 20, "dropout": 0.2, "attention_dropout": 0.1}
    | {"activation_dropout": 0.1}
)
RELATIVE = dataclasses.replace(
    CONFIG, norm="rms", gated_ffn=True, encoder_positions="relative",
    decoder_positions="relative", final_dropout=0.1, relative_per_layer=True,
)  # fmt: skip
HEARING = dataclasses.replace(
    CONFIG, source_vocab_size=0, feature_dim=4, max_source_length=6, encoder_positions="frozen",
    key_bias=False,
)  # fmt: skip
SETTINGS = TrainingSettings(
    dtype="float64", device="cpu", warmup_steps=4, peak_lr=3e-3, weight_decay=0.1, clip_norm=0.5
)
THREE = dataclasses.replace(SETTINGS, accumulate=3)
# Layers that are computed again make a program of their own, for one device too.
LESS = dataclasses.replace(THREE, gradient_checkpointing=ALL, ema_decay=0.9)
RUNS = {"plain": SETTINGS, "three": THREE, "less": LESS}
# What is trained on each mesh; one device is what all are compared with.
MESHES = {
    "data=1": ["plain", "three", "less"],
    "data=3": ["plain"],
    "data=4": ["plain", "three"],
    "fsdp=2": ["three"],
    "fsdp=4": ["plain", "three"],
    "data=2,fsdp=2": ["less"],
}
THOROUGH = ("data=3", "fsdp=2")  # which are much like four
RESUMED = {("data=4", "plain"), ("fsdp=4", "plain"), ("data=2,fsdp=2", "less")}
SEARCHES = [Search(beam=2, nbest=2)] + [Search(beam=2, rule="generate")] * ALL


def batch(number: int, rows: int = ROWS) -> Batch:
    """Other rows for every number."""
    draw = np.random.default_rng(number)
    sources, targets = np.zeros((rows, 7), np.int32), np.zeros((rows, 5), np.int32)
    for source, target in zip(sources, targets, strict=True):
        for row, vocabulary in ((source, 23), (target, 20)):
            length = draw.integers(1, len(row), endpoint=True)
            row[:length] = draw.integers(4, vocabulary, length)
    start = np.full((rows, 1), CONFIG.decoder_start_id, np.int32)
    return Batch(sources, np.concatenate([start, targets[:, :-1]], 1), targets)


def step_batches(step: int, settings: TrainingSettings) -> list[Batch]:
    count = settings.accumulate
    return [batch(count * step + part) for part in range(count)]


def train(backend: JaxBackend, first: int, last: int) -> np.ndarray:
    """Loss per token and gradient norm of each step, (steps, 2)."""
    found = []
    for step in range(first, last + 1):
        batches = [read(part, backend) for part in step_batches(step, backend.settings)]
        result = backend.train_step(batches, step, learning_rate(step, backend.settings))
        found.append((float(result.loss_sum) / result.tokens, float(result.gradient_norm)))
    return np.array(found)


def read(batch: Batch, backend: JaxBackend) -> Batch:
    """The batch, with 11 frames of features for each source where the model reads those."""
    M = backend.config.feature_dim
    if not M:
        return batch
    draw = np.random.default_rng(int(batch.source.sum()))
    return dataclasses.replace(batch, source=draw.normal(size=(len(batch.source), 11, M)))


def world_of(text: str) -> World:
    return World(Alone(), read_mesh(text))


def made(
    text: str,
    settings: TrainingSettings,
    state: Checkpoint | None = None,
    config: TransformerConfig = CONFIG,
) -> JaxBackend:
    state = first_state(config, settings) if state is None else state
    return make_backend(config, settings, state, world_of(text))


def gradients(backend: JaxBackend) -> dict[str, np.ndarray]:
    """The gradients of one batch, before clipping."""
    with jax.enable_x64(True):
        found, _ = backend.gradients(batch(1), 77, batch(1).tokens)
    return {name: backend.place.read(array) for name, array in found.items()}


def judged(backend: JaxBackend) -> dict[str, Any]:
    """What is asked of a model between steps."""
    outputs = [backend.decode(batch(1).source, search) for search in SEARCHES]
    outputs.append(backend.decode(batch(2, rows=1).source, Search(beam=1)))
    return {
        "losses": [backend.evaluate(batch(number, rows)) for number, rows in ((1, ROWS), (2, 1))],
        "encoded": backend.encode(batch(0).source),
        "decoded": [[[best.ids for best in row] for row in rows] for rows in outputs],
    }


def whole_run(text: str, settings: TrainingSettings, looked_at: bool) -> dict[str, Any]:
    """Steps with a look at the model after five, from where some are done again."""
    backend = made(text, settings)
    found: dict[str, Any] = {"gradients": gradients(backend)}
    first = train(backend, 1, HALF)
    found["judged"] = judged(backend) if looked_at else None
    found["state"] = backend.state()
    found["curve"] = np.concatenate([first, train(backend, HALF + 1, STEPS)])
    found["bytes"] = held_bytes(backend)
    if (text, name_of(settings)) in RESUMED:
        found["end"] = backend.state()
        again = made(text, settings, found["state"])
        found["taken over"] = again.state()
        train(again, HALF + 1, STEPS)
        found["end again"] = again.state()
    return found


def name_of(settings: TrainingSettings) -> str:
    return next(name for name, other in RUNS.items() if other == settings)


def held_bytes(backend: JaxBackend) -> int:
    """What the first device holds of the trained weights and both moments."""
    arrays = jax.tree.leaves((backend.trained, backend.optimizer_state))
    return sum(array.addressable_shards[0].data.nbytes for array in arrays)


def moved_state(state: Checkpoint, text: str) -> dict[str, Any]:
    """A state of another mesh: what comes back of it, and the curve from there."""
    backend = made(text, SETTINGS, state)
    return {"state": backend.state(), "curve": train(backend, HALF + 1, STEPS)}


COLLECTIVES = re.compile(r"= .*? (all-reduce|all-gather|reduce-scatter|all-to-all)(?:-start)?\(")


def collectives(text: str, settings: TrainingSettings) -> dict[str, Any]:
    """How often a program for a mesh has each collective, and the largest shapes of all-reduces."""
    backend = made(text, settings)
    with jax.enable_x64(True):
        arguments = backend.arrays(batch(1)), np.uint32(1), 1
        lowered = backend.programs.gradients.lower(backend.trained, backend.frozen, *arguments)
        program = lowered.compile().as_text()
    lines = [line for line in program.splitlines() if COLLECTIVES.search(line)]
    found = [match[1] for line in lines if (match := COLLECTIVES.search(line))]
    reduced = [line.split(" all-reduce", 1)[0] for line in lines if " all-reduce" in line]
    return {
        "counts": {name: found.count(name) for name in sorted(set(found))},
        "reduced": reduced,
        "cut": sum(placement.cut_axis(w.shape, 4) is not None for w in backend.trained.values()),
    }


def relative_configs() -> list[TransformerConfig]:
    """With a table for each layer, and with one for each half."""
    return [RELATIVE, dataclasses.replace(RELATIVE, relative_per_layer=False)]


def few_steps(text: str) -> np.ndarray:
    """Three steps, a restart and two steps, compiled anew."""
    settings = dataclasses.replace(SETTINGS, accumulate=2)
    anew = functools.lru_cache(maxsize=1)(backends.programs.__wrapped__)
    with mock.patch.object(backends, "programs", anew):
        backend = made(text, settings)
        first = train(backend, 1, 3)
        return np.concatenate([first, train(made(text, settings, backend.state()), 4, 5)])


@contextlib.contextmanager
def masks_without_first_row() -> Iterator[None]:
    with mock.patch.object(Dropout, "elements_before", lambda self, x: jax.numpy.uint32(0)):
        yield


@contextlib.contextmanager
def mean_of_means() -> Iterator[None]:
    plain = Programs.pure_gradients

    def careless(self, trained, frozen, arrays, key, tokens, first_row=0):
        own = jax.numpy.maximum(1, (arrays[2] != CONFIG.pad_id).sum()) * 4
        return plain(self, trained, frozen, arrays, key, own, first_row)

    with mock.patch.object(Programs, "pure_gradients", careless):
        yield


@contextlib.contextmanager
def averaged_gradients() -> Iterator[None]:
    plain = placement.OnMesh._summed

    def careless(self, gradients, loss, cuts):
        summed, loss = plain(self, gradients, loss, cuts)
        return {name: gradient / 4 for name, gradient in summed.items()}, loss

    with mock.patch.object(placement.OnMesh, "_summed", careless):
        yield


@contextlib.contextmanager
def a_seed_of_its_own() -> Iterator[None]:
    plain = Programs.pure_gradients

    def careless(self, trained, frozen, arrays, key, tokens, first_row=0):
        key = key + jax.numpy.uint32(jax.lax.axis_index(placement.AXES))
        return plain(self, trained, frozen, arrays, key, tokens, first_row)

    with mock.patch.object(Programs, "pure_gradients", careless):
        yield


@contextlib.contextmanager
def moments_in_another_order() -> Iterator[None]:
    plain = placement.OnMesh.put

    def careless(self, array):
        square = array.ndim == 2 and array.shape[0] == array.shape[1]
        return plain(self, array.T if square and self.turning else array)

    def turning(self, checkpoint, plain=JaxBackend.optimizer_state_of):
        self.place.turning = True
        try:
            return plain(self, checkpoint)
        finally:
            self.place.turning = False

    with (
        mock.patch.object(placement.OnMesh, "turning", False, create=True),
        mock.patch.object(placement.OnMesh, "put", careless),
        mock.patch.object(JaxBackend, "optimizer_state_of", turning),
    ):
        yield


MISTAKES: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "none": contextlib.nullcontext,
    "masks without first row": masks_without_first_row,
    "mean of means": mean_of_means,
    "averaged gradients": averaged_gradients,
    "a seed of its own": a_seed_of_its_own,
    "moments in another order": moments_in_another_order,
}


def mistaken(text: str) -> dict[str, np.ndarray]:
    found = {}
    for name, mistake in MISTAKES.items():
        with mistake():
            found[name] = few_steps(text)
    return found


def searched_on_the_second() -> list[set[int]]:
    """Numbers of the devices where a model of the second one encodes and is searched."""
    with mock.patch.object(placement, "find_device", lambda name: jax.devices()[1]):
        model = model_on(CONFIG, initial_weights(CONFIG, 0), "cpu")
    source, search = np.full((2, 5), 4, np.int32), Search(beam=2)
    task = decoding.make_task(model, source, search)
    arrays = model.encode(source), decoding.found(model, task, search, 7)[0]
    return [{device.id for device in array.devices()} for array in arrays]


def main(file: Path, thorough: bool) -> None:
    found: dict[Any, Any] = {}
    keep_programs()
    looked_at = {("data=1", "plain"), ("data=4", "plain")}
    for text, names in MESHES.items():
        if text in THOROUGH and not thorough:
            continue
        for name in names:
            found[text, name] = whole_run(text, RUNS[name], (text, name) in looked_at)
    found["moved"] = moved_state(found["fsdp=4", "plain"]["state"], "data=4")
    found["hearing"] = {
        text: train(made(text, SETTINGS, config=HEARING), 1, 3) for text in ("data=1", "fsdp=4")
    }
    found["second"] = searched_on_the_second()
    if thorough:
        found["few"] = few_steps("data=1")
        found["relative"] = {
            text: [train(made(text, THREE, config=config), 1, 3) for config in relative_configs()]
            for text in ("data=1", "fsdp=4")
        }
        found["mistakes"] = mistaken("fsdp=4")
    again = dataclasses.replace(SETTINGS, gradient_checkpointing=True)
    for name, text, settings in (
        ("data", "data=4", SETTINGS), ("fsdp", "fsdp=4", SETTINGS), ("again", "fsdp=4", again)
    ):  # fmt: skip
        found["collectives", name] = collectives(text, settings)
    file.write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "thorough" in sys.argv[2:])
