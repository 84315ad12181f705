"""States an array at a time: drawn, read, written, by one process or several, in little memory."""

import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import numpy_backend
import pytest
from messages import says
from thread_processes import in_processes

from convert.checkpoints import (
    check_checkpoint,
    read_checkpoint,
    write_flax_checkpoint,
    write_torch_checkpoint,
)
from convert.core import parallel
from training_recipe.arrays import Header, Parts, headers_of
from training_recipe.backend import ARRAYS, Checkpoint
from training_recipe.options.settings import TrainingSettings
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.integrity import seal
from training_recipe.runs.progress import Progress
from transformer_spec import TransformerConfig, UserError, initial_weights, weight_shapes
from twinformer.training.checkpoints import chosen_state
from twinformer.training.states import first_state, read_state, save_state

ROOT = Path(__file__).parents[3]
CONFIG = TransformerConfig(
    source_vocab_size=11, target_vocab_size=13, hidden_dim=6, inner_dim=7, num_heads=2,
    num_encoder_layers=1, num_decoder_layers=1, max_length=5,
)  # fmt: skip
WRITERS = {"torch": write_torch_checkpoint, "jax": write_flax_checkpoint}
NAME = "encoder.enc_layers.0.ffn.fc1.weight"
# Writes 52 tensors of random numbers that are made when they are asked for, 4 MB and once 16 MB,
# with little room for what is worked on together; the memory that this took more than nothing.
PEAK = """
import resource, sys
from pathlib import Path
import numpy as np, tensorstore
from convert.checkpoints import write_flax_checkpoint, write_torch_checkpoint
from convert.core import parallel
from convert.formats import orbax_writer
from training_recipe.arrays import Header, Parts
from training_recipe.backend import Checkpoint

parallel.ROOM = orbax_writer.TOGETHER = 4 * 2**20
shapes = {f"encoder.enc_layers.{i}.ffn.fc1.weight": (1024, 1024) for i in range(51)}
shapes["encoder.embedding.weight"] = (4096, 1024)
draw = np.random.default_rng(0)
parts = Parts(
    {name: Header(shape, np.dtype(np.float32)) for name, shape in shapes.items()},
    lambda name: draw.random(shapes[name], np.float32),
)
write = {"torch": write_torch_checkpoint, "jax": write_flax_checkpoint}[sys.argv[1]]
small = Checkpoint({"encoder.embedding.weight": np.ones((2, 3), np.float32)})
for place in ("small", "large"):
    Path(sys.argv[2], place).mkdir()
write(Path(sys.argv[2], "small"), small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write(Path(sys.argv[2], "large"), Checkpoint(parts))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def backend(name: str = "torch", steps: int = 3) -> numpy_backend.NumpyBackend:
    """One that has moments; it is saved as the backend of a name saves."""
    settings = TrainingSettings(device="cpu", seed=5)
    made = numpy_backend.make_backend(CONFIG, settings, first_state(CONFIG, settings))
    made.name, made.count = name, steps
    draw = np.random.default_rng(1)
    for part in (made.first, made.second):
        for array in part.values():
            array += draw.random(array.shape, np.float32)
    return made


def bytes_of(state: Checkpoint) -> dict[str, dict[str, bytes]]:
    return {
        field: {name: array.tobytes() for name, array in getattr(state, field).items()}
        for field in ARRAYS
    }


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_write_what_one_writes(
    tmp_path, monkeypatch, name: str, count: int
) -> None:
    monkeypatch.setattr(parallel, "LITTLE", 0)  # other threads write
    pytest.importorskip("tensorstore")
    for place in ("alone", "together"):
        (tmp_path / place).mkdir()
    save_state(backend(name), tmp_path / "alone")
    reads = [[] for _ in range(count)]

    def work(processes):
        made, thread = backend(name), threading.get_ident()
        parts = made.parts()

        def written_down(field, arrays):
            def read(one):
                assert threading.get_ident() == thread, "only the thread that saves may read"
                reads[processes.index].append((field, one))
                return arrays[one]

            return Parts(headers_of(arrays), read)

        made.parts = lambda: parts.changed(written_down)
        save_state(made, tmp_path / "together", processes)

    found, _ = in_processes(count, work)
    assert found == [None] * count
    assert all(read == reads[0] for read in reads), "all read the same, in the same order"
    names = [(field, one) for field in ARRAYS for one in getattr(backend().state(), field)]
    assert sorted(reads[0]) == sorted(names), "each is read once"
    alone, together = (read_state(tmp_path / place) for place in ("alone", "together"))
    assert bytes_of(alone) == bytes_of(together) == bytes_of(backend().state())
    assert alone.count == together.count == 3
    same = ["tensors.json", *(["model.safetensors", "optimizer.safetensors"] * (name == "torch"))]
    for file in same:
        one, other = (tmp_path / place / file for place in ("alone", "together"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_numbers_that_are_not_finite_leave_nothing(tmp_path, name: str) -> None:
    """All are named at once, though each array is read once; the other process is let go."""
    pytest.importorskip("tensorstore")

    def work(processes):
        made = backend(name)
        made.weights[NAME][0, :2] = np.nan
        made.second[NAME][1, 1] = np.inf
        save_state(made, tmp_path, processes)

    (first, second), _ = in_processes(2, work)
    assert isinstance(first, UserError) and second is None
    says(first, "not saved, because these are not finite any more: 2 faults")
    expected = [f"{NAME}: 2 of 42 numbers", f"exp_avg_sq/{NAME}: 1 of 42 numbers"]
    assert first.faults == expected and os.listdir(tmp_path) == []


def test_a_full_disk_lets_the_others_go(tmp_path) -> None:
    def work(processes):
        save_state(backend(), tmp_path / "nowhere", processes)

    (first, second), _ = in_processes(2, work)
    assert isinstance(first, UserError) and second is None
    says(first, "nowhere", "No such file")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "jax"])
def test_writing_takes_the_memory_of_few_tensors(tmp_path, name: str) -> None:
    """Of 220 MB, at most three times the largest tensor of 16 MB and a constant."""
    pytest.importorskip("tensorstore")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, name, str(tmp_path)], env=environment, text=True, timeout=100,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 2**10
    assert int(done.stdout) * unit <= 3 * 16 * 2**20 + 32 * 2**20


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_first_weights_are_drawn_one_at_a_time(dtype: str) -> None:
    settings = TrainingSettings(dtype=dtype, seed=3, init_gain=0.5)
    state = first_state(CONFIG, settings)
    expected = initial_weights(CONFIG, 3, np.dtype(dtype).type, 0.5)
    assert list(state.weights) == list(expected)
    for name, array in expected.items():
        assert headers_of(state.weights)[name] == Header(array.shape, array.dtype)
        assert state.weights[name].dtype == dtype
        assert state.weights[name].tobytes() == array.tobytes()


def test_drawing_takes_the_memory_of_one_weight() -> None:
    config = TransformerConfig(
        source_vocab_size=600, target_vocab_size=600, hidden_dim=128, inner_dim=512, num_heads=2,
        num_encoder_layers=3, num_decoder_layers=3, max_length=5,
    )  # fmt: skip
    weights = first_state(config, TrainingSettings()).weights
    largest = 8 * max(int(np.prod(shape)) for shape in weight_shapes(config).values())
    tracemalloc.start()
    total = sum(weights[name].nbytes for name in weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 8 * largest and peak < 3 * largest


def test_checking_reads_nothing() -> None:
    def refuse(name: str) -> np.ndarray:
        raise AssertionError(f"{name} was read")

    def refusing(_, arrays):
        return Parts(headers_of(arrays), refuse)

    state = backend().state().changed(refusing)
    check_checkpoint(state, CONFIG, np.float32)
    headers = headers_of(state.weights) | {NAME: Header((2, 2), np.dtype(np.float64))}
    broken = Checkpoint(Parts(headers, refuse))
    with pytest.raises(UserError) as caught:
        check_checkpoint(broken, CONFIG, np.float32)
    says(caught.value, f"wrong shape of '{NAME}'", "float64 [2, 2]", "expected float32 [7, 6]")


@pytest.mark.parametrize("twin", ["torch", "jax"])
def test_reading_waits_until_it_is_asked(tmp_path, twin: str, monkeypatch) -> None:
    pytest.importorskip("tensorstore")
    save_state(backend(twin), tmp_path)
    state, read = read_checkpoint(tmp_path), []
    from convert.core import checked

    real = checked.hash_of
    monkeypatch.setattr(checked, "hash_of", lambda array: read.append(array.shape) or real(array))
    check_checkpoint(state, CONFIG, np.float32)
    assert read == []
    assert state.weights[NAME].tobytes() == backend().weights[NAME].tobytes()
    assert len(read) == 1


def test_damage_that_shows_later_names_other_checkpoints(tmp_path) -> None:
    run = RunFolder(tmp_path)
    for step in (3, 6):
        run.checkpoint(step).mkdir(parents=True)
        save_state(backend(steps=step), run.checkpoint(step))
        seal(run.checkpoint(step), Progress(step=step, backend="torch"))
    path = run.checkpoint(6) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    state = chosen_state(run, 6)
    check_checkpoint(state, CONFIG, np.float32)
    with pytest.raises(UserError) as caught:
        numpy_backend.make_backend(CONFIG, TrainingSettings(device="cpu"), state)
    says(caught.value, "model.safetensors is damaged", "complete: step_00000003", "--from-step 3")
    assert bytes_of(chosen_state(run, 6, verify=False)) != bytes_of(chosen_state(run, 3))
