"""python benchmarks/scale.py: what several devices cost, seen on the processors of one machine.

1. A step of one device, plain and through the code for many (a mesh of one device), in turns, each
   in a process of its own, by the time of the processor. With ``--before FOLDER`` the code of that
   folder, a checkout of an older commit, takes turns too.
2. The bytes that a step sends, by the number of devices: read in JAX's compiled program, counted at
   torch.distributed's calls. Operands are what a device gives to collectives; in a ring is what it
   then sends where each goes round all devices. Devices are simulated, and nothing is timed.
3. The share of rows that are padding because a batch's rows go evenly over devices.

Ratios are medians of the rounds' ratios: above 1 is faster than the plain step, so the plain step
is not slower than the older commit's where that one's ratio is at most 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks import turns  # noqa: E402
from benchmarks.scale_contenders import BEFORE, NAMES  # noqa: E402
from benchmarks.scale_sizes import SIZES  # noqa: E402

QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
MESHES = ["data=2", "data=4", "data=8", "fsdp=2", "fsdp=4", "fsdp=8", "data=2,fsdp=4"]
DEVICES = (2, 3, 4, 8, 16, 64, 256)
LETTERS = 24  # the longest word that is kept


def compare(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Processor time of a step of each contender, and its ratio to the plain one."""
    names = [n for n in options.contenders if options.before or not n.endswith(BEFORE)]
    task = {"size": size, "steps": options.steps, "threads": options.threads}
    task |= {"before": str(options.before)}
    with turns.contenders("benchmarks.scale_contenders", names, task) as started:
        turns.take_turns(started, options.rounds)
        return report(started)


def report(started: list[turns.Contender]) -> dict[str, Any]:
    """Print and return the times, beside those of the plain step of the same framework."""
    plain = {c.name: c for c in started}
    found: dict[str, Any] = {}
    print(f"{'':40}{'ms a step':>12}{'of plain':>10}{'rounds':>16}")
    for c in started:
        base = next((name for name in plain if c.name.startswith(name)), c.name)
        rates = turns.ratios(plain[base], c, "cpu")
        times = [1000 * turn["cpu"] for turn in c.turns]
        ratio, spread = statistics.median(rates), f"{min(rates):.2f} to {max(rates):.2f}"
        print(f"{c.name:40}{statistics.median(times):12.2f}{ratio:10.3f}{spread:>16}", flush=True)
        found[c.name] = {"ms": statistics.median(times), "rounds_ms": times, "ratio": ratio}
        found[c.name] |= {"ratios": rates, "version": c.version}
    return found


def sent(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Print and return the bytes of a step by backend and mesh."""
    found: dict[str, Any] = {}
    print(f"{'':24}{'operands MB':>14}{'in a ring MB':>14}   collectives")
    for backend in ("jax", "torch"):
        found[backend] = counted(backend, size, options.meshes)
        for mesh, each in found[backend].items():
            numbers = (each[key] / 1e6 for key in ("operand_bytes", "sent_in_a_ring"))
            kinds = ", ".join(f"{count} {kind}" for kind, count in each["collectives"].items())
            print(f"{backend + ' ' + mesh:24}{''.join(f'{n:14.3f}' for n in numbers)}   {kinds}")
    return found


def counted(backend: str, size: str, meshes: list[str]) -> dict[str, Any]:
    """What scale_counts.py finds, in a process with simulated devices."""
    from training_recipe.distributed.mesh import read_mesh

    most = max(read_mesh(mesh).devices for mesh in meshes)
    settings = {"JAX_NUM_CPU_DEVICES": str(most), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICKLY}
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "found.json"
        command = [sys.executable, "-m", "benchmarks.scale_counts", backend, size, str(file)]
        subprocess.run([*command, *meshes], cwd=ROOT, env=os.environ | settings, check=True)
        return json.loads(file.read_text())


def padding(budget: int) -> dict[str, Any]:
    """Print and return the share of rows of padding that each number of devices adds."""
    from training_recipe.batching.batches import BatchPlan

    plan = BatchPlan(pairs(), budget)
    found = {str(devices): plan.filling(devices) for devices in DEVICES}
    shown = ", ".join(f"{devices}: {share:.2%}" for devices, share in found.items())
    print(f"rows of padding by devices, batches of {budget} tokens: {shown}", flush=True)
    return found


def pairs() -> list[tuple[list[int], list[int]]]:
    """As many letters and sounds as the words of CMUdict have, which words is no matter here."""
    from training_recipe.corpora.cmudict import dictionary_path, read_pronunciations

    words = read_pronunciations(dictionary_path()).items()
    return [
        ([1] * len(word), [1] * len(sounds[0].split()))
        for word, sounds in words if len(word) <= LETTERS
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What several devices cost.")
    add = parser.add_argument
    add("--rounds", type=turns.at_least_one, default=15, help="turns that count")
    add("--steps", type=turns.at_least_one, default=5, help="steps of a turn")
    add("--sizes", nargs="*", choices=SIZES, default=["D 128", "D 256"], help="timed models")
    add("--contenders", nargs="+", choices=NAMES, default=NAMES, metavar="NAME",
        help=f"of {' | '.join(NAMES)}")  # fmt: skip
    add("--before", type=_folder, metavar="FOLDER", help="a checkout to compare with")
    add("--sent", choices=SIZES, default="D 128", help="whose bytes are counted")
    add("--meshes", nargs="*", default=MESHES, help="where bytes are counted")
    add("--budgets", nargs="*", type=turns.at_least_one, default=[4096, 32768],
        help="tokens of the batches whose padding is counted")  # fmt: skip
    turns.add_common_options(parser)
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"threads": options.threads, "steps": {}, "sent": {}, "padding": {}}
    try:
        measure(options, results)
    finally:
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _folder(text: str) -> Path:
    if not (Path(text) / "train.py").is_file():
        raise argparse.ArgumentTypeError(f"{text} is no checkout: it has no train.py")
    return Path(text).resolve()


def measure(options: argparse.Namespace, results: dict[str, Any]) -> None:
    """All parts; what is measured stands in ``results`` at once."""
    for budget in options.budgets:
        results["padding"][budget] = padding(budget)
    if options.meshes:
        print(f"{options.sent}: bytes that each device sends in a step", flush=True)
        results["sent"] = sent(options.sent, options)
    for size in options.sizes:
        print(f"{size}: processor time of a step, {options.threads} threads", flush=True)
        results["steps"][size] = compare(size, options)


if __name__ == "__main__":
    main()
