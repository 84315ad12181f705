"""python benchmarks/generate_agreement.py FOLDER ... --text FILE: our outputs beside generate's.

Each folder of the Hub is converted, its texts are cut by its own tokenizer, and every text goes
through transformers' generate and through our search with the folder's settings, in the same
batches. What is counted is texts whose best outputs are the same ids. In float64 generate still
rounds to float32 on its way; --wide has it compute in float64 throughout.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.generate_judge import Judge, padded, random_settings  # noqa: E402
from training_recipe.searching.published import read_generation  # noqa: E402
from transformer_spec import TransformerConfig  # noqa: E402

WIDTH = 16  # of batches, a multiple of it, so that few shapes are compiled
LIKELY = {"num_beams": 1, "max_length": 20, "num_return_sequences": 1}

Decode = Callable[[np.ndarray, Any], Any]


def ours(folder: Path, backend: str, dtype: str) -> tuple[TransformerConfig, Decode]:
    """Our model of a folder and its search."""
    from convert import ConversionRequest, convert

    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "ours"
        convert(ConversionRequest(folder, place, to="flax" if backend == "jax" else "torch"))
        model = (flax_model if backend == "jax" else torch_model)(place, dtype)
    if backend == "jax":
        from flax_transformer.decoding import decode
    else:
        from torch_transformer.decoding import decode
    return model.config, lambda source, search: decode(model, source, search)


def torch_model(place: Path, dtype: str) -> Any:
    import torch

    import torch_transformer

    return torch_transformer.load(place).to(getattr(torch, dtype))


def flax_model(place: Path, dtype: str) -> Any:
    import jax
    from flax import nnx

    import flax_transformer

    jax.config.update("jax_enable_x64", dtype == "float64")
    graph, weights = nnx.split(flax_transformer.load(place))
    return nnx.merge(graph, jax.tree.map(lambda array: array.astype(dtype), weights))


def read_lines(path: Path, count: int) -> list[str]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return [line.strip() for _, line in zip(range(count), file, strict=False)]


def batches(rows: list[list[int]], size: int, config: TransformerConfig) -> Iterator[np.ndarray]:
    """The sources in order of length, as arrays of few shapes, the shorter ones padded."""
    ordered = sorted(rows, key=len)
    for first in range(0, len(ordered), size):
        source = padded(ordered[first : first + size], config.pad_id)
        wide = min(-(-source.shape[1] // WIDTH) * WIDTH, config.max_length)
        yield np.pad(source, ((0, 0), (0, wide - source.shape[1])), constant_values=config.pad_id)


def agreement(
    judge: Judge,
    decode: Decode,
    config: TransformerConfig,
    parts: list[np.ndarray],
    settings: dict[str, Any],
    wide: bool,
) -> dict[str, float]:
    """Texts, texts with the same best output, tokens of generate, and seconds of both."""
    search, notes = read_generation(settings, config, "settings")
    for note in notes:
        print(note, file=sys.stderr)
    found = dict.fromkeys(("texts", "same", "tokens", "generate s", "ours s"), 0.0)
    for source in parts:
        begun = time.perf_counter()
        theirs, _ = judge.outputs(source, settings, wide)
        between = time.perf_counter()
        mine = decode(source, search)
        found["ours s"] += time.perf_counter() - between
        found["generate s"] += between - begun
        found["texts"] += len(source)
        found["tokens"] += sum(len(row[0]) for row in theirs)
        pairs = zip(mine, theirs, strict=True)
        found["same"] += sum(bool(a) and a[0].ids == b[0] for a, b in pairs)
    return found


def compare(folder: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    """A line of the table for each beam and each drawn setting of a folder."""
    from transformers import AutoTokenizer

    judge = Judge(folder, options.dtype)
    config, decode = ours(folder, options.backend, options.dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cut = {"truncation": True, "max_length": config.max_length}
    texts = read_lines(options.text, options.sentences)
    rows = [tokenizer(text, **cut)["input_ids"] for text in texts]
    base = {key: value for key, value in judge.settings.items() if value is not None}
    longest = min(base["max_length"], config.max_length, options.max_length)
    parts = list(batches(rows, options.batch, config))
    tasks = {f"beam {n}": {**base, "num_beams": n, "max_length": longest} for n in options.beams}
    if options.settings:
        likely = [row[0] for row in judge.outputs(parts[0], base | LIKELY)[0]]
        for number in range(options.settings):
            drawn = random_settings(number, base, config.target_vocab_size, likely)
            tasks[f"settings {number}"] = drawn
    lines = []
    for name, settings in tasks.items():
        found = agreement(judge, decode, config, parts, settings, options.wide)
        lines.append(found)
        share = 100 * found["same"] / found["texts"]
        print(
            f"{folder.name:16}{name:14}{found['texts']:7.0f}{share:10.3f} %"
            f"{found['tokens'] / found['texts']:9.1f}{found['generate s']:10.1f}"
            f"{found['ours s']:8.1f}",
            flush=True,
        )
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Texts with the same output as generate's.")
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="model folders of the Hub")
    add("--text", type=Path, required=True, metavar="FILE", help="a text a line, also .gz")
    add("--sentences", type=int, default=1000, help="of the file, from its begin [1000]")
    add("--batch", type=int, default=50, help="texts at once [50]")
    add("--backend", choices=("torch", "jax"), default="torch")
    add("--dtype", choices=("float64", "float32"), default="float64")
    add("--beams", type=int, nargs="*", default=[1, 4, 5], help="widths of the beam [1 4 5]")
    add("--settings", type=int, default=0, metavar="N", help="also N drawn settings [0]")
    longest = "bound of the settings' max_length [none]"
    add("--max-length", type=int, default=10**6, metavar="N", help=longest)
    add("--wide", action="store_true", help="generate computes in float64 where it rounds")
    options = parser.parse_args(arguments)
    print(f"{'':30}{'texts':>7}{'same':>12}{'tokens':>9}{'generate s':>10}{'ours s':>8}")
    lines = [line for folder in options.folders for line in compare(folder, options)]
    texts, same = (sum(line[key] for line in lines) for key in ("texts", "same"))
    print(f"{'all':30}{texts:7.0f}{100 * same / texts:10.3f} %")


if __name__ == "__main__":
    main()
