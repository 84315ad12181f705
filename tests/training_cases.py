"""Small runs of the real command, and ways to stop them at a chosen moment.

The cases take a backend's name: ``numpy`` (numpy_backend.py), ``torch`` or ``jax``.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import train
from convert.checkpoints import load_weights_of, read_checkpoint
from training_recipe.backend import MakeBackend
from twinformer.frameworks import training_backend
from twinformer.training import checkpoints
from twinformer.training.states import save_state

TESTS = Path(__file__).parent
SHARE = 1e-12  # of what several devices may differ from one, in float64
SMALL = [
    *("--data", "words.tsv", "--columns", "word,sound", "--preset", "tiny"),
    *("--source-vocabulary", "characters", "--target-vocabulary", "whitespace"),
    *("--hidden-dim", "8", "--inner-dim", "12", "--num-heads", "2", "--max-length", "40"),
    *("--num-encoder-layers", "1", "--num-decoder-layers", "1"),
    *("--batch-tokens", "128", "--batch-shapes", "2", "--peak-lr", "0.05", "--warmup-steps", "3"),
    *("--log-every", "3", "--evaluate-every", "5", "--save-every", "4", "--valid-examples", "4"),
    *("--steps", "12", "--device", "cpu", "--dropout", "0.2", "--beam", "2"),
]


def write_words(folder: Path, count: int = 60) -> None:
    """words.tsv: letters, and each letter's sound."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefg", k=draw.randint(2, 7))) for _ in range(count)]
    lines = [f"{word}\t{' '.join(letter.upper() * 2 for letter in word)}" for word in words]
    (folder / "words.tsv").write_text("\n".join(["word\tsound", *lines]) + "\n")


def factory(name: str) -> MakeBackend:
    """The make_backend of a name."""
    if name == "numpy":
        from numpy_backend import make_backend

        return make_backend
    if name == "jax":
        keep_programs()
    return training_backend(name)


def keep_programs() -> None:
    """The JAX backend keeps the programs of many models, as tests train a few in turns."""
    from flax_transformer import step

    if step.programs.cache_info().maxsize == 1:
        step.programs = functools.lru_cache(maxsize=16)(step.programs.__wrapped__)


def flags(name: str) -> list[str]:
    """The flag that names a backend; the NumPy one passes for a torch run."""
    return ["--backend", "torch" if name == "numpy" else name]


class Hooked:
    """A backend that calls ``after_step(step)``."""

    def __init__(self, backend, after_step) -> None:
        self.backend, self.after_step = backend, after_step

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def train_step(self, batches, step, learning_rate):
        result = self.backend.train_step(batches, step, learning_rate)
        self.after_step(step)
        return result


def nothing(_) -> None:
    pass


def run(name: str, arguments: list[str], after_step=nothing, in_save=nothing) -> int:
    """train.py in this process; the exit status. ``in_save(folder)`` meets files half-written."""

    def make_backend(config, settings, state):
        return Hooked(factory(name)(config, settings, state), after_step)

    def save(backend, folder, processes):
        save_state(backend, folder, processes)
        in_save(folder)

    with mock.patch.object(checkpoints, "save_state", save):
        return train.main([*arguments, *flags(name)], make_backend)


def signal_after(step: int, number: int = signal.SIGINT):
    """A hook that sends this process a signal after one step."""

    def after_step(done: int) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return after_step


def halve_a_file(folder: Path) -> None:
    """Leave the first file of a checkpoint half-written."""
    path = sorted(part for part in folder.rglob("*") if part.is_file())[0]
    os.truncate(path, path.stat().st_size // 2)


def launch(
    name: str, moment: str, arguments: list[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """train.py in its own process, which sends itself a signal at ``moment``.

    ``moment`` is ``SIGNAL@step:N`` (after step N), ``SIGNAL@save:N`` (in the N-th save, half-way)
    or ``SIGNAL@saved:N`` (after the N-th checkpoint appeared, before anything else notes it).
    """
    return _in_a_process([__file__, name, moment, *arguments], folder)


def launch_code(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python code in its own process, which can import these cases."""
    return _in_a_process(["-c", code], folder)


def _in_a_process(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def arrays(checkpoint: Path) -> dict[str, np.ndarray]:
    """Weights, moments and raw weights of a checkpoint of any backend."""
    if not (checkpoint / "progress.json").exists():
        return load_weights_of(checkpoint)[1]
    read = read_checkpoint(checkpoint)
    parts = {"w": read.weights, "m": read.first_moments, "v": read.second_moments, "raw": read.raw}
    return {f"{kind}/{n}": array for kind, part in parts.items() for n, array in part.items()}


def metrics(folder: Path) -> list[dict]:
    """metrics.jsonl without what the clock decides."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "speed"} for line in lines]


def assert_same_run(folder: Path, expected: Path) -> None:
    """Weights, moments and metrics are the same bits, and so is what is best."""
    newest = sorted((expected / "checkpoints").iterdir())[-1].name
    one, other = arrays(folder / "checkpoints" / newest), arrays(expected / "checkpoints" / newest)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name
    assert metrics(folder) == metrics(expected)
    assert os.readlink(folder / "best") == os.readlink(expected / "best")
    assert not list(folder.rglob("*.partial-*"))


def numbers(content) -> list[float]:
    """All numbers of a metrics line, in order."""
    parts = content.values() if isinstance(content, dict) else content
    if isinstance(content, (dict, list)):
        return [number for part in parts for number in numbers(part)]
    return [float(content)] if isinstance(content, (int, float)) else []


def assert_same_curve(one: Path, other: Path) -> None:
    """The metrics of two runs are the same to rounding."""
    lines = [metrics(each) for each in (one, other)]
    assert [line.keys() for line in lines[0]] == [line.keys() for line in lines[1]]
    assert numbers(lines[0]) == pytest.approx(numbers(lines[1]), rel=0, abs=SHARE)


def _hooks(moment: str):
    """The hooks of a moment for this process."""
    name, place = moment.split("@")
    kind, count = place.split(":")
    number, left = signal.Signals[name], [int(count)]

    def strike() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)

    def in_save(folder: Path) -> None:
        if left[0] == 1:
            halve_a_file(folder)
        strike()

    if kind == "saved":
        link = checkpoints.point_link
        checkpoints.point_link = lambda *a: (strike(), link(*a)) and None
    steps = signal_after(int(count), number) if kind == "step" else nothing
    return steps, in_save if kind == "save" else nothing


if __name__ == "__main__":
    backend, moment, *arguments = sys.argv[1:]
    hooks = _hooks(moment) if moment != "never" else (nothing, nothing)
    sys.exit(run(backend, arguments, *hooks))
