"""Contenders that take turns, each in a process of its own.

All contenders of a comparison are started first and then called one after the other, round after
round, so that each round's ratios compare what ran under the same conditions. A process that waits
for its turn computes nothing. Peak memory is read while a process lives: what the kernel reports at
its end would include the memory of the one that started it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Threads of a library that has just worked look out for more work this long: 0.2 s in OpenMP.
PAUSE = 0.3

JAX, TORCH = "twinformer, JAX", "twinformer, PyTorch"
LOW = "bfloat16"

Turn = Callable[[int], dict[str, Any]]


class Contender:
    """A process that made ``module.make(name, task)`` and calls it whenever it is its turn.

    ``first`` holds what its first turn reported (which compiles), ``turns`` what the others did.
    """

    def __init__(self, module: str, name: str, task: dict[str, Any]) -> None:
        self.name, self.count = name, 0
        self.turns: list[dict[str, Any]] = []
        command = [sys.executable, "-m", "benchmarks.turns", module, name, json.dumps(task)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._answer()["version"]
        self.first = self._take(0)

    def take(self, number: int) -> dict[str, Any]:
        """One more turn; what it reports beside its ``seconds`` is the contender's affair."""
        time.sleep(PAUSE)
        self.turns.append(self._take(number))
        return self.turns[-1]

    def _take(self, number: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # one that ended gives no answer either
            self.process.stdin.write(f"{number}\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit(f"{self.name} ended with status {self.process.returncode}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.process.wait()

    def median(self, key: str) -> float:
        return statistics.median(turn[key] for turn in self.turns)

    def peak(self) -> int:
        """Most bytes resident in any turn after the first."""
        return max(turn["peak"] for turn in self.turns)


@contextlib.contextmanager
def contenders(module: str, names: list[str], task: dict[str, Any]) -> Iterator[list[Contender]]:
    """The contenders' processes, started one after the other and ended together."""
    started: list[Contender] = []
    try:
        for name in names:
            started.append(Contender(module, name, task))
            first = started[-1].first["seconds"]
            print(f"  {name}: first turn {first:.1f} s", file=sys.stderr, flush=True)
        yield started
    finally:
        for contender in started:
            contender.close()


def installed(names: list[str], modules: dict[str, str]) -> list[str]:
    """Those whose library is there; which are left out is said."""
    found = [n for n in names if n not in modules or importlib.util.find_spec(modules[n])]
    if left_out := [name for name in names if name not in found]:
        print(f"not installed: {', '.join(left_out)}", file=sys.stderr)
    if not found:
        raise SystemExit("nothing is left to compare; the extra `bench` installs the others")
    return found


def take_turns(started: list[Contender], rounds: int) -> bool:
    """All rounds, or after Ctrl-C the whole ones, of which there is at least one: then False."""
    try:
        for number in range(1, rounds + 1):
            for contender in started:
                contender.take(number)
    except KeyboardInterrupt:
        whole = min(len(contender.turns) for contender in started)
        if not whole:
            raise
        for contender in started:
            del contender.turns[whole:]
        print(f"stopped after {whole} of {rounds} rounds", file=sys.stderr)
        return False
    return True


def use_cores(threads: int) -> None:
    """Leave this process so many cores; XLA takes a thread for each that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """How many threads, and where the results go."""
    parser.add_argument("--threads", type=at_least_one, default=len(os.sched_getaffinity(0)),
        help="of each contender")  # fmt: skip
    parser.add_argument("--json", type=_output, help="write all results there")
    parser.add_argument("--plot", type=_output, help="draw the rates there")


def at_least_one(text: str) -> int:
    """A number of rounds, of sentences."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def _output(text: str) -> Path:
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {Path(text).parent}")
    return Path(text)


def keep(results: dict[str, Any], options: argparse.Namespace, picture: str) -> None:
    """Write and draw the results where asked for; ``picture`` is a function of pictures.py."""
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.plot and results.get("compared") != []:  # there is something to draw
        getattr(importlib.import_module("benchmarks.pictures"), picture)(results, options.plot)


def ratios(ours: Contender, theirs: Contender, key: str) -> list[float]:
    """Ours over theirs, round by round."""
    pairs = zip(ours.turns, theirs.turns, strict=True)
    return [our_turn[key] / their_turn[key] for our_turn, their_turn in pairs]


def summary(contender: Contender, key: str) -> dict[str, Any]:
    """What a results file holds of a contender; ``key`` is the rate that counts."""
    return {
        "version": contender.version,
        "first_turn_seconds": contender.first["seconds"],
        "first_turn_peak_bytes": contender.first["peak"],
        "peak_bytes": contender.peak(),
        key: contender.median(key),
        "rounds": [turn[key] for turn in contender.turns],
    }


def peak_memory(again: bool = False) -> int:
    """Most bytes of this process in memory so far; ``again`` starts from now. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    if again:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    return peak


def serve(module: str, name: str, task: dict[str, Any]) -> None:
    """Answer every line of standard input by one turn of the contender."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    version, turn = importlib.import_module(module).make(name, task)
    _tell(answers, {"version": version})
    for line in sys.stdin:
        began = time.perf_counter()
        report = turn(int(line))
        report["seconds"] = time.perf_counter() - began
        report |= {key: amount / report["seconds"] for key, amount in report.pop("done").items()}
        _tell(answers, report | {"peak": peak_memory(again=True)})


def _tell(answers: Any, report: dict[str, Any]) -> None:
    answers.write(json.dumps(report) + "\n")
    answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
