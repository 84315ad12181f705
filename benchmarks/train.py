"""python benchmarks/train.py: training, side by side with what a user would pick instead.

Models of the same sizes are trained on the same batches by both backends and by
torch.nn.Transformer, MarianMTModel, x-transformers and JoeyNMT, or by the library's T5 (those that
are installed: the extra ``bench``), each in a process of its own, taking turns round after round.
Each drops out where its own training does, with the same rate; ``--dropout 0`` compares them
without. Rates count real tokens, not padding. The first turn, in which XLA compiles, is reported
apart. Ratios are to the fastest of the others in the same number format, each the median of the
rounds' ratios. At the end stands which share of this machine's float32 matrix-product rate a whole
step at D 512 reaches; ``--share`` with no size leaves that out. Ctrl-C keeps the rounds that are
whole.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks import turns  # noqa: E402
from benchmarks.matrix_rate import best_rates  # noqa: E402
from benchmarks.training_contenders import CONTENDERS, MODULES, suits  # noqa: E402
from benchmarks.training_sizes import SIZES, arithmetic, lengths_from  # noqa: E402

RATE = "target_tokens"
COMPARED = ("D 256", "Multi30k")


def compare(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Results of one size at one dropout rate."""
    suited = [name for name in options.contenders if suits(name, size)]
    task, names = task_of(size, options), turns.installed(suited, MODULES)
    with turns.contenders("benchmarks.training_contenders", names, task) as started:
        complete = turns.take_turns(started, options.rounds)
        found = {"lengths": lengths_from(size), "complete": complete}
        return task | found | report(started)


def task_of(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a contender is told."""
    task = {"size": size, "dropout": options.dropout, "dropout_rng": options.dropout_rng}
    return task | {"threads": options.threads}


def report(started: list[turns.Contender]) -> dict[str, Any]:
    """Print and return each contender's rate, memory and ratio to the fastest outside one."""
    outside = [c for c in started if not c.name.startswith("twinformer")] or started
    print(f"{'':30}{'target/s':>10}{'all/s':>10}{'of fastest':>12}{'peak MiB':>10}{'compile':>9}")
    found: dict[str, Any] = {}
    for c in started:
        alike = rivals(c, outside)
        fastest = max(alike, key=lambda other: other.median(RATE))
        smallest = min(other.peak() for other in alike)
        times, memory = statistics.median(turns.ratios(c, fastest, RATE)), c.peak() / 2**20
        first = c.first["seconds"] - statistics.median(t["seconds"] for t in c.turns)
        line = f"{c.name:30}{c.median(RATE):10.0f}{c.median('tokens'):10.0f}{times:12.2f}"
        print(f"{line}{memory:10.0f}{first:8.1f}s", flush=True)
        found[c.name] = turns.summary(c, RATE) | {
            "tokens": c.median("tokens"), "ratio_to_fastest_outside": times,
            "fastest_outside": fastest.name,
            "memory_ratio_to_smallest_outside": c.peak() / smallest, "compile_seconds": first,
        }  # fmt: skip
    return {"contenders": found}


def rivals(contender: turns.Contender, outside: list[turns.Contender]) -> list[turns.Contender]:
    """The outside ones in the same number format; all, where there is none."""
    low = contender.name.endswith(turns.LOW)
    return [c for c in outside if c.name.endswith(turns.LOW) == low] or outside


def share(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Which share of the best measured matrix-product rate whole steps reach."""
    config = SIZES[size].config(options.dropout)
    work = sum(arithmetic(config, batch) for batch in SIZES[size].make_batches())
    rates, found = [], {}
    task, ours = task_of(size, options), [turns.JAX, turns.TORCH]
    with turns.contenders("benchmarks.training_contenders", ours, task) as started:
        for number in range(1, options.rounds + 1):
            rates.append(best_rates(config, SIZES[size].make_batches()[0], options.threads))
            for contender in started:
                contender.take(number)
        for c in started:
            reached = [work / t["seconds"] for t in c.turns]
            shares = [rate / max(r.values()) for rate, r in zip(reached, rates, strict=True)]
            found[c.name] = {"flops": statistics.median(reached), "rounds": shares}
            found[c.name]["share"] = statistics.median(shares)
            line = f"{c.name:22}{found[c.name]['flops'] / 1e9:8.0f} GFLOP/s"
            print(f"{line}{100 * found[c.name]['share']:6.0f} % of the machine's", flush=True)
    machine = {name: statistics.median(r[name] for r in rates) for name in rates[0]}
    print("matrix products", {name: f"{r / 1e9:.0f} GFLOP/s" for name, r in machine.items()})
    return {"size": size, "step_flops": work, "matrix_flops": machine, "contenders": found}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Training beside other libraries.")
    parser.add_argument("--rounds", type=turns.at_least_one, default=7, help="turns that count")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(COMPARED), help="models")
    parser.add_argument("--share", nargs="*", choices=SIZES, default=["D 512"],
        help="sizes whose share of the rate of matrix products is measured")  # fmt: skip
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS),
        metavar="NAME", help=f"of {' | '.join(CONTENDERS)}")  # fmt: skip
    parser.add_argument("--dropout", type=float, default=0.1, help="its rate")
    parser.add_argument("--dropout-rng", choices=("portable", "native"), default="portable")
    turns.add_common_options(parser)
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"threads": options.threads, "compared": [], "share": []}
    try:
        measure(options, results)
    finally:
        turns.keep(results, options, "draw_training")


def measure(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Every size; what is measured stands in ``results`` at once."""
    for size in options.sizes:
        dropout = f"dropout {options.dropout} ({options.dropout_rng})"
        print(f"{size}, {dropout}, sentences {lengths_from(size)}", flush=True)
        results["compared"].append(compare(size, options))
        if not results["compared"][-1]["complete"]:
            return
    for size in options.share:
        results["share"].append(share(size, options))


if __name__ == "__main__":
    main()
