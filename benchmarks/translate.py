"""python benchmarks/translate.py: beam search, side by side with what a user would pick instead.

The same sentences are translated by the same weights in both backends, there by our exact rule and
by that of generate, by transformers' generate and by CTranslate2, in batches of 32 with a beam of
5, each in a process of its own, taking turns: each round translates the next part of the sentences.
Who can work at a batch on each core does, which is faster than all cores at one batch.
Outputs are compared sentence by sentence. Each ratio is the median of the rounds' ratios; the first
turn, in which XLA compiles, is apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks import turns  # noqa: E402
from benchmarks.translation_contenders import (  # noqa: E402
    CONTENDERS,
    CT2,
    GENERATE,
    MODULES,
    SAME_MODEL,
    USUAL,
)
from benchmarks.translation_model import FORMS, write_models  # noqa: E402

RATE = "output_tokens"


def compare(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    names = turns.installed(options.contenders, MODULES)
    wanted = {MODULES[name] for name in names if name in MODULES}
    write_models(place, options.form, FORMS[options.form](**options.model), wanted)
    task = {"place": str(place), "threads": options.threads, "sentences": options.sentences}
    task |= {"rounds": options.rounds, "form": options.form, "model": options.model}
    with turns.contenders("benchmarks.translation_contenders", names, task) as started:
        turns.take_turns(started, options.rounds)
        return report(started)


def report(started: list[turns.Contender]) -> dict[str, Any]:
    """Print and return rates, ratios, memory and the share of sentences with equal outputs."""
    others = [c for name in (CT2, GENERATE) for c in started if c.name == name]
    heads = "".join(f"{f'of {c.name}':>26}" for c in others)
    print(f"{'':38}{'tokens/s':>10}{heads}{'equal':>9}{'peak MiB':>10}")
    found: dict[str, Any] = {}
    for c in started:
        times = {other.name: statistics.median(turns.ratios(c, other, RATE)) for other in others}
        equal = equal_share(c, others[0]) if others else 1.0
        line = "".join(f"{value:26.2f}" for value in times.values())
        memory = c.peak() / 2**20
        print(f"{c.name:38}{c.median(RATE):10.0f}{line}{100 * equal:8.1f}%{memory:10.0f}")
        found[c.name] = turns.summary(c, RATE) | {"ratios": times, "equal": equal}
    for name, usual in SAME_MODEL.items():
        if {name, usual} <= found.keys():
            one, other = (next(c for c in started if c.name == n) for n in (name, usual))
            ratio = statistics.median(turns.ratios(one, other, RATE))
            found[name]["of the exact rule"] = ratio
            print(f"{name}: {ratio:.3f} of the exact rule's rate")
    return found


def equal_share(one: turns.Contender, other: turns.Contender) -> float:
    """Share of the sentences whose outputs are equal."""
    pairs = zip(one.turns, other.turns, strict=True)
    same = [
        a == b for ours, theirs in pairs
        for a, b in zip(ours["outputs"], theirs["outputs"], strict=True)
    ]  # fmt: skip
    return sum(same) / len(same)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Translation beside other libraries.")
    parser.add_argument("--sentences", type=turns.at_least_one, default=1000)
    parser.add_argument(
        "--rounds", type=turns.at_least_one, default=8, help="parts of the sentences"
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=USUAL,
        metavar="NAME",
        help=f"of {' | '.join(CONTENDERS)} [a batch on each core, no bfloat16]")  # fmt: skip
    parser.add_argument("--form", choices=FORMS, default="marian", help="base model, or T5-small")
    parser.add_argument("--model", type=json.loads, default={}, help="JSON of other sizes")
    turns.add_common_options(parser)
    options = parser.parse_args(arguments)
    if options.rounds > options.sentences:
        parser.error(f"--rounds is {options.rounds}; there are {options.sentences} sentences")
    with tempfile.TemporaryDirectory() as name:
        results = {"threads": options.threads, "sentences": options.sentences}
        results["contenders"] = compare(Path(name), options)
    turns.keep(results, options, "draw_translation")


if __name__ == "__main__":
    main()
