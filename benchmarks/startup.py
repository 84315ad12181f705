"""python benchmarks/startup.py [RUN]: from typing translate.py for one sentence to its output.

Every call is a new process; files were read once before, so that they come from the disk cache.
``nothing kept`` has an empty folder of compiled programs each time, as in a user's first call;
``programs kept`` has what the call before left, as in every other. ``framework alone`` is a process
that imports the framework and ends. Contenders take turns; seconds of the clock, and of all
processors together, are medians. Without RUN a model of the default size with random weights is
written to a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from convert.checkpoints import Checkpoint, write_torch_checkpoint  # noqa: E402
from training_recipe.options.presets import DICTIONARY_PRESET, PRESETS  # noqa: E402
from training_recipe.text.vocabulary import build_vocabulary  # noqa: E402
from transformer_spec import TransformerConfig, initial_weights  # noqa: E402

IMPORTS = {"jax": "import jax.numpy, flax.nnx", "torch": "import torch"}
KEPT, EMPTY, ALONE = "programs kept", "nothing kept", "framework alone"
GOALS = {("jax", KEPT): 5.0, ("torch", KEPT): 4.0}


def untrained_model(folder: Path) -> Path:
    """A folder that translate.py takes: the default size, letters to words."""
    source = build_vocabulary("characters", ["abcdefghijklmnopqrstuvwxyz'-."])
    target = build_vocabulary("whitespace", [" ".join(f"P{number}" for number in range(39))])
    fields: dict[str, Any] = PRESETS[DICTIONARY_PRESET]["model"] | {
        "source_vocab_size": source.size,
        "target_vocab_size": target.size,
    }
    config = TransformerConfig(**fields)
    (folder / "vocabulary").mkdir(parents=True)
    source.save(folder / "vocabulary", "source")
    target.save(folder / "vocabulary", "target")
    config.save(folder / "config.json")
    write_torch_checkpoint(folder, Checkpoint(initial_weights(config, 0)))
    return folder


def command(run: Path, backend: str, kind: str) -> list[str]:
    if kind == ALONE:
        return [sys.executable, "-c", IMPORTS[backend]]
    return [sys.executable, "translate.py", str(run), "--backend", backend, "translator"]


def timed(arguments: list[str], cache: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processors that a process took."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(cache)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(arguments, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used


def measure(run: Path, rounds: int, place: Path) -> dict[tuple[str, str], list[tuple]]:
    """What each contender took in each round, after a round that does not count."""
    found: dict[tuple[str, str], list[tuple]] = {}
    pairs = [(b, k) for b in IMPORTS for k in (KEPT, EMPTY, ALONE) if (b, k) != ("torch", EMPTY)]
    for number in range(rounds + 1):
        for backend, kind in pairs:
            cache = place / kind.replace(" ", "-")
            if kind == EMPTY:
                shutil.rmtree(cache, ignore_errors=True)
            took = timed(command(run, backend, kind), cache)
            counted = number or "not counted"
            said = f"round {counted}: {backend}, {kind}: {took[0]:.2f} s, processor {took[1]:.2f} s"
            print(said, file=sys.stderr, flush=True)
            if number:
                found.setdefault((backend, kind), []).append(took)
    return found


def report(found: dict[tuple[str, str], list[tuple]]) -> None:
    print(f"{'':8}{'':18}{'seconds':>9}{'fastest':>9}{'processor':>11}{'goal':>7}")
    for (backend, kind), took in found.items():
        seconds, used = zip(*took, strict=True)
        goal = GOALS.get((backend, kind))
        numbers = statistics.median(seconds), min(seconds), statistics.median(used)
        wanted = "" if goal is None else f"{goal:.1f}"
        print(
            f"{backend:8}{kind:18}{numbers[0]:9.2f}{numbers[1]:9.2f}{numbers[2]:11.2f}{wanted:>7}"
        )


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    reader.add_argument("run", metavar="RUN", nargs="?", type=Path, help="a run to translate with")
    reader.add_argument("--rounds", type=int, default=5, metavar="N", help="[5]")
    given = reader.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = given.run.resolve() if given.run else untrained_model(Path(folder) / "model")
        report(measure(run, given.rounds, Path(folder)))


if __name__ == "__main__":
    main()
