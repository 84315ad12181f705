"""python benchmarks/transcribe.py MODEL: speech to text, side by side with what a user would pick.

The same recordings, put behind each other until they last long enough, are transcribed by the same
weights: in both backends, by transformers' generate, by faster-whisper in float32 and int8, and by
OpenAI's own program where it is installed; each in a process of its own, taking turns, each round
the next part. All write greedily with timestamps, window after window, in English, without second
tries and without previous text. MODEL is a folder of CTranslate2, as `make speech-weights` makes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks import turns  # noqa: E402
from benchmarks.transcription_contenders import (  # noqa: E402
    CONTENDERS,
    FASTER,
    GENERATE,
    MODULES,
    USUAL,
    write_models,
    write_parts,
)

RATE = "audio_seconds"


def compare(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    names = turns.installed(options.contenders, MODULES)
    write_models(place, options.model, names)
    write_parts(place, options.recordings, options.seconds, options.rounds)
    task = {"place": str(place), "threads": options.threads}
    with turns.contenders("benchmarks.transcription_contenders", names, task) as started:
        turns.take_turns(started, options.rounds)
        return report(started)


def report(started: list[turns.Contender]) -> dict[str, Any]:
    """Print and return rates, ratios, memory and the share of parts with equal texts."""
    others = [c for name in (FASTER, GENERATE) for c in started if c.name == name]
    heads = "".join(f"{f'of {c.name}':>28}" for c in others)
    print(f"{'':28}{'audio s a s':>12}{heads}{'equal':>8}{'peak MiB':>10}")
    found: dict[str, Any] = {}
    for c in started:
        times = {other.name: statistics.median(turns.ratios(c, other, RATE)) for other in others}
        pairs = zip(c.turns, others[-1].turns, strict=True) if others else ()
        same = [one["text"] == other["text"] for one, other in pairs]
        equal = 100 * sum(same) / max(1, len(same))
        line = "".join(f"{value:28.2f}" for value in times.values())
        memory = c.peak() / 2**20
        print(f"{c.name:28}{c.median(RATE):12.1f}{line}{equal:7.0f}%{memory:10.0f}")
        found[c.name] = turns.summary(c, RATE) | {"ratios": times, "equal": equal}
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Speech to text beside other programs.")
    parser.add_argument("model", type=Path, help="a folder of CTranslate2 with a speech model")
    parser.add_argument("--recordings", type=Path, nargs="+", required=True, metavar="FILE",
        help="sound files in English")  # fmt: skip
    parser.add_argument("--seconds", type=turns.at_least_one, default=600, help="of sound in all")
    parser.add_argument("--rounds", type=turns.at_least_one, default=5, help="parts of the sound")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=USUAL,
        metavar="NAME", help=f"of {' | '.join(CONTENDERS)}")  # fmt: skip
    turns.add_common_options(parser)
    options = parser.parse_args(arguments)
    missing = [str(path) for path in options.recordings if not path.is_file()]
    if missing:
        parser.error(f"no file: {', '.join(missing)}; --recordings names sound files")
    with tempfile.TemporaryDirectory() as name:
        results: dict[str, Any] = {"threads": options.threads, "seconds": options.seconds}
        results["contenders"] = compare(Path(name), options)
    turns.keep(results, options, "draw_transcription")


if __name__ == "__main__":
    main()
