"""python -m benchmarks.verifying: what it costs to compare weights while they are read.

A checkpoint with the weights and moments of a base-size model is written by either framework's
writer and read in this process: its weights, as translation does, all of it, as a resumed run does,
and by a conversion into safetensors of the other twin; each with and without ``verify``. The two
take turns, and the median of the rounds is printed. Files are in memory: where they come from a
disk, the same seconds are a smaller part. ``writing`` is a checkpoint with its record and without.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.translation_model import base_config, random_weights
from convert.checkpoints import (
    Checkpoint,
    checkpoint,
    load_weights_of,
    read_checkpoint,
    write_flax_checkpoint,
    write_torch_checkpoint,
)
from convert.conversion import ConversionRequest, convert
from transformer_spec import TransformerConfig, trained_names

WRITERS = {"torch": write_torch_checkpoint, "jax": write_flax_checkpoint}
OTHER = {"torch": "flax", "jax": "torch"}
Way = Callable[[bool], object]


def state_of(config: TransformerConfig) -> Checkpoint:
    """Random weights, and moments of their size."""
    weights = random_weights(config)
    names = trained_names(config)
    draw = np.random.default_rng(0)
    first, second = (
        {name: draw.random(weights[name].shape, np.float32) for name in names} for _ in range(2)
    )
    return Checkpoint(weights, first, second, 1000)


def write(backend: str, folder: Path, state: Checkpoint, record: bool) -> None:
    """Write a checkpoint into a new folder; without ``record`` nothing is hashed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    plain = {"Hashed": lambda tensors: tensors, "write_record": lambda *_: None}
    with nullcontext() if record else mock.patch.multiple(checkpoint, **plain):
        WRITERS[backend](folder, state)


def to_other_twin(folder: Path, backend: str, verify: bool) -> None:
    place = folder.with_name("converted")
    request = ConversionRequest(
        folder, place, to=OTHER[backend], container="safetensors", verify=verify
    )
    convert(request)
    shutil.rmtree(place)


def read_all(folder: Path, verify: bool) -> None:
    read_checkpoint(folder, verify).changed(lambda _, arrays: dict(arrays))


def ways(backend: str, folder: Path, state: Checkpoint) -> dict[str, Way]:
    """What is timed, each told whether to verify; the first leaves what the others read."""
    return {
        "writing": functools.partial(write, backend, folder, state),
        "reading the weights": lambda verify: load_weights_of(folder, verify=verify),
        "reading all of it": functools.partial(read_all, folder),
        "converting it": functools.partial(to_other_twin, folder, backend),
    }


def seconds(way: Way, verify: bool) -> float:
    began = time.perf_counter()
    way(verify)
    return time.perf_counter() - began


def measure(way: Way, rounds: int) -> tuple[float, float]:
    """Median seconds without and with; a first round, which is not counted, fills the memory."""
    turns = [(seconds(way, False), seconds(way, True)) for _ in range(rounds + 1)][1:]
    without, with_it = zip(*turns, strict=True)
    return statistics.median(without), statistics.median(with_it)


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to compare weights when read.")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is run [5]")
    options = parser.parse_args()
    config = base_config()
    state = state_of(config)
    size = sum(array.nbytes for array in state.weights.values())
    print(f"weights {size / 1e6:,.0f} MB, with moments {3 * size / 1e6:,.0f} MB; seconds")
    print(f"{'':<27}{'without':>9}{'verified':>10}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as name:
        for backend in WRITERS:
            folder = Path(name) / backend
            for what, way in ways(backend, folder, state).items():
                without, with_it = measure(way, options.rounds)
                if what == "writing":
                    config.save(folder / "config.json")
                ratio = with_it / without
                print(f"{backend:<6}{what:<21}{without:>9.3f}{with_it:>10.3f}{ratio:>7.2f}")


if __name__ == "__main__":
    main()
