"""The float32 matrix-product rate of this machine, on the shapes of a training step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.turns import use_cores
from training_recipe.batching.batches import Batch
from transformer_spec import TransformerConfig

Product = Callable[[], object]
Shape = tuple[int, int, int]
SECONDS = 0.25
LIBRARIES = ("torch", "jax")


def shapes(config: TransformerConfig, batch: Batch) -> list[Shape]:
    """(n, i, o) of a step's large products, forward and backward."""
    n, D, F = batch.target_in.size, config.hidden_dim, config.inner_dim
    forward = [(n, D, D), (n, D, F), (n, F, D), (n, D, config.target_vocab_size)]
    return [shape for n, i, o in forward for shape in ((n, i, o), (n, o, i), (i, n, o))]


def best_rates(config: TransformerConfig, batch: Batch, threads: int) -> dict[str, float]:
    """Of each library, the operations per second on the shape that it multiplies fastest."""
    found = {}
    for library in LIBRARIES:
        command = [sys.executable, "-m", "benchmarks.matrix_rate", library, str(threads)]
        question = json.dumps(shapes(config, batch))
        done = subprocess.run(
            [*command, question], cwd=Path(__file__).resolve().parents[1], check=True,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        found[library] = max(json.loads(done.stdout))
    return found


def products(library: str, shape: Shape, threads: int) -> Product:
    """A product of random matrices, waited for."""
    n, i, o = shape
    draw = np.random.default_rng(0)
    a, b = (draw.standard_normal(size, np.float32) for size in ((n, i), (i, o)))
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
        left, right, out = torch.from_numpy(a), torch.from_numpy(b), torch.empty(n, o)
        return lambda: torch.mm(left, right, out=out)
    use_cores(threads)
    import jax

    compiled, left, right = jax.jit(lambda x, y: x @ y), jax.device_put(a), jax.device_put(b)
    return lambda: compiled(left, right).block_until_ready()


def rate(product: Product, shape: Shape) -> float:
    """Operations per second of the fastest of as many repetitions as SECONDS hold."""
    for _ in range(2):
        product()
    began, best = time.perf_counter(), float("inf")
    while time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - start)
    return 2.0 * shape[0] * shape[1] * shape[2] / best


if __name__ == "__main__":
    library, threads, given = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    print(json.dumps([rate(products(library, tuple(s), threads), tuple(s)) for s in given]))
