"""python benchmarks/scan.py [--hidden-dim N ...]: encoder layers one by one beside one scan.

Layers as a ``jax.lax.scan`` over stacked weights are compiled once for all layers. What that takes
and saves on one device: time to compile and processor time of a gradient, in turns in one run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402

from flax_transformer.cpu.programs import BARRIERS_STAY  # noqa: E402
from flax_transformer.layers import EncoderLayer  # noqa: E402
from transformer_spec import TransformerConfig  # noqa: E402

ROWS, LENGTH = 64, 32


def main() -> None:
    options = parser().parse_args()
    print(f"{'D':>6}{'':>12}{'compile s':>12}{'gradient s':>12}{'of one by one':>16}")
    for hidden_dim in options.hidden_dim:
        programs = both(hidden_dim, options.layers)
        spent = in_turns({name: run for name, (run, _) in programs.items()}, options.turns)
        for name, (_, seconds) in programs.items():
            rate = spent["one by one"] / spent[name]
            print(f"{hidden_dim:>6}{name:>12}{seconds:>12.1f}{spent[name]:>12.3f}{rate:>16.3f}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description="Layers one by one beside one scan over them.")
    made.add_argument("--hidden-dim", type=int, nargs="+", default=[256, 512], metavar="N")
    made.add_argument("--layers", type=int, default=6)
    made.add_argument("--turns", type=int, default=12)
    return made


def both(hidden_dim: int, layers: int) -> dict[str, tuple[Callable[[], Any], float]]:
    """Each way's gradient and the seconds that compiling it took."""
    config = TransformerConfig(
        source_vocab_size=100,
        target_vocab_size=100,
        hidden_dim=hidden_dim,
        inner_dim=4 * hidden_dim,
        num_heads=8,
        num_encoder_layers=layers,
        num_decoder_layers=1,
        max_length=LENGTH,
        norm_position="pre",
    )
    graph, state = nnx.split(EncoderLayer(config))
    key, mask = jax.random.key(0), jnp.ones((ROWS, 1, 1, LENGTH), bool)
    stacked = jax.tree.map(lambda s: 0.03 * jax.random.normal(key, (layers, *s.shape)), state)
    separate = [jax.tree.map(lambda array, n=n: array[n], stacked) for n in range(layers)]
    x = jax.random.normal(key, (ROWS, LENGTH, hidden_dim))

    def one_by_one(weights: Any, x: jax.Array) -> jax.Array:
        for own in weights:
            x = nnx.merge(graph, own)(x, mask)
        return jnp.square(x).mean()

    def scanned(weights: Any, x: jax.Array) -> jax.Array:
        step = lambda x, own: (nnx.merge(graph, own)(x, mask), None)  # noqa: E731
        return jnp.square(jax.lax.scan(step, x, weights)[0]).mean()

    return {"one by one": made(one_by_one, separate, x), "scan": made(scanned, stacked, x)}


def made(function: Any, weights: Any, x: jax.Array) -> tuple[Callable[[], Any], float]:
    began = time.perf_counter()
    gradient = jax.jit(jax.grad(function), compiler_options=BARRIERS_STAY)
    program = gradient.lower(weights, x).compile()
    return lambda: jax.block_until_ready(program(weights, x)), time.perf_counter() - began


def in_turns(programs: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """The median processor time of each, all in turns."""
    spent: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(turns):
        for name, run in programs.items():
            began = time.process_time()
            run()
            spent[name].append(time.process_time() - began)
    return {name: statistics.median(seconds) for name, seconds in spent.items()}


if __name__ == "__main__":
    main()
