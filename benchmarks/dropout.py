"""python benchmarks/dropout.py: a training step with portable and with native dropout.

Portable masks are a hash that both frameworks compute alike, native ones come from each framework's
own generator; ``none`` is the same step without dropout. Each round runs every kind once, one after
the other, so that all of them meet the same other work on the machine; the median, the fastest and
the median of each round's ratio to portable are printed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path[0] = str(Path(__file__).resolve().parents[1])

from flax_transformer.process import prepare_process as prepare_jax  # noqa: E402
from flax_transformer.step import make_backend as make_jax  # noqa: E402
from torch_transformer.process import prepare_process as prepare_torch  # noqa: E402
from torch_transformer.step import make_backend as make_torch  # noqa: E402
from training_recipe.backend import Backend  # noqa: E402
from training_recipe.batching.batches import Batch  # noqa: E402
from training_recipe.options.presets import DICTIONARY_PRESET, PRESETS  # noqa: E402
from training_recipe.options.settings import TrainingSettings  # noqa: E402
from transformer_spec import TransformerConfig  # noqa: E402
from twinformer.training.states import first_state  # noqa: E402

MAKERS = {"torch": make_torch, "jax": make_jax}
PREPARE = {"torch": prepare_torch, "jax": prepare_jax}
KINDS = {"portable": ("portable", 0.1), "native": ("native", 0.1), "none": ("portable", 0.0)}
WIDE = {"hidden_dim": 256, "inner_dim": 1024, "num_heads": 4, "norm_position": "pre"} | {
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "max_length": 64,
}
# Model fields, the two vocabulary sizes, and (B, S, T) of the batch.
SIZES = {
    "default": (PRESETS[DICTIONARY_PRESET]["model"], (33, 43), (60, 17, 11)),
    "wide": (WIDE, (10_000, 10_000), (64, 60, 60)),
}


def make_batch(shape: tuple[int, int, int], sizes: tuple[int, int]) -> Batch:
    """Random tokens without padding."""
    B, S, T = shape
    draw = np.random.default_rng(0)
    source = draw.integers(4, sizes[0], (B, S), np.int32)
    target = draw.integers(4, sizes[1], (B, T + 1), np.int32)
    return Batch(source, target[:, :-1].copy(), target[:, 1:].copy())


def backends(framework: str, size: str, device: str) -> dict[str, Backend]:
    """A backend of each kind."""
    fields, (source, target), _ = SIZES[size]
    made = {}
    for kind, (rng, rate) in KINDS.items():
        model = fields | {"dropout": rate, "source_vocab_size": source, "target_vocab_size": target}
        settings = TrainingSettings(device=device, dropout_rng=rng)
        config = TransformerConfig(**model)
        PREPARE[framework](settings.device)
        made[kind] = MAKERS[framework](config, settings, first_state(config, settings))
    return made


def measure(framework: str, size: str, device: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each kind in each round; the first, which compiles, is left out."""
    _, sizes, shape = SIZES[size]
    batch, made = make_batch(shape, sizes), backends(framework, size, device)
    times: dict[str, list[float]] = {kind: [] for kind in made}
    for step in range(1, rounds + 2):
        for kind, backend in made.items():
            times[kind].append(seconds(backend, batch, step))
    return {kind: found[1:] for kind, found in times.items()}


def seconds(backend: Backend, batch: Batch, step: int) -> float:
    """One step, waited for: the norm comes with the new weights."""
    began = time.perf_counter()
    result = backend.train_step([batch], step, 1e-4)
    _ = float(result.loss_sum), float(result.gradient_norm)
    return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A training step by kind of dropout.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    options = parser.parse_args(arguments)
    print(f"{'size':8} {'backend':8} {'dropout':9} {'median':>9} {'fastest':>9}  ratio to portable")
    for size in options.sizes:
        for framework in MAKERS:
            times = measure(framework, size, options.device, options.rounds)
            for kind, found in times.items():
                ratios = [a / b for a, b in zip(found, times["portable"], strict=True)]
                numbers = (1e3 * statistics.median(found), 1e3 * min(found))
                line = f"{numbers[0]:6.0f} ms {numbers[1]:6.0f} ms  {statistics.median(ratios):.2f}"
                print(f"{size:8} {framework:8} {kind:9} {line}", flush=True)


if __name__ == "__main__":
    main()
