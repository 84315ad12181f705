"""python benchmarks/convert.py: time and memory of a conversion, beside ``cp`` and beside torch.

A checkpoint with the shapes of a large Marian model is generated in shards, then converted to Flax
names and back, each way in a fresh process: by ``python -m convert`` (every tensor hashed on both
sides), and by what people write themselves (load the state dict in torch, transpose, save). ``cp``
copies the same bytes and waits for the disk, as the conversion does. Runs of one round follow each
other, so that ratios compare like with like; the median of the rounds is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# As a script this file's own folder comes first, where ``convert`` would be this very file.
sys.path[0] = str(ROOT)

from convert.families.marian import Marian  # noqa: E402
from convert.formats.safetensors import write_sharded  # noqa: E402
from convert.tensors import Header, Tensors  # noqa: E402
from transformer_spec import TransformerConfig  # noqa: E402

GB = 10**9
BY_HAND = """
import sys, pathlib
from safetensors.torch import load_file
from safetensors.numpy import save_file
source, dest = map(pathlib.Path, sys.argv[1:])
state = {}
for shard in sorted(source.glob("*.safetensors")):
    state |= load_file(shard)
def turned(name, tensor):
    return tensor.T.contiguous() if tensor.ndim == 2 and "embed" not in name else tensor
dest.mkdir()
save_file({n: turned(n, t).numpy() for n, t in state.items()}, dest / "model.safetensors")
"""


class Random(Tensors):
    """Tensors of random bytes with small finite values, made when they are read."""

    def read(self, name: str) -> np.ndarray:
        shape, dtype = self[name]
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        return draw.random(shape, dtype)


def config_of(size: int) -> TransformerConfig:
    """A Marian config of about ``size`` bytes in float32."""
    D = 256 if size < GB else 2048
    layer = 4 * (12 * D * D + 2 * 8 * D * D) * 1.0
    vocab_size = max(64, int(0.15 * size / (4 * D)))
    layers = max(1, round((size - 4 * D * vocab_size) / layer))
    return TransformerConfig(
        vocab_size, vocab_size, D, 4 * D, D // 64, layers, layers, 512,
        sinusoid_layout="concatenated", activation="silu", tied_embeddings="all",
        output_bias="frozen", pad_id=vocab_size - 1, eos_id=0, unk_id=1, bos_id=0,
        decoder_start_id=vocab_size - 1, dropout=0.1,
    )  # fmt: skip


def generate(folder: Path, size: int) -> tuple[int, int]:
    """Write the checkpoint in shards with the config beside it; its bytes, and its largest's."""
    family, config = Marian(), config_of(size)
    headers = {n: Header(h.shape, np.dtype(np.float32)) for n, h in
               family.written(config).tensors.items()}  # fmt: skip
    tensors = Random("generated", headers)
    folder.mkdir()
    write_sharded(folder, tensors, {"format": "pt"}, max(size // 8, 1))
    settings = family.write_settings(config, None)
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tensors.size, max(header.size for header in tensors.values())


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a command; its failure ends the benchmark.

    The peak is read while it runs: what the kernel reports at the end of a process includes the
    memory of the one that started it.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_of(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return seconds, peak


def peak_of(pid: int) -> int:
    """The most bytes that a running process had in memory so far; 0 when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def commands(place: Path) -> dict[str, Callable[[], list[str]]]:
    """What is compared, in the order in which a round runs it; DEST is new each time."""
    python, dest = sys.executable, str(place / "out")
    marian, flax = str(place / "marian"), str(place / "flax")
    convert = [python, "-m", "convert"]
    safe = ["--container", "safetensors"]
    copy = f"cp -r {marian} {dest} && sync -f {dest}"
    return {
        "cp": lambda: ["sh", "-c", f"cp -r {marian} {dest}"],
        "cp and sync": lambda: ["sh", "-c", copy],
        "convert, Marian to Flax": lambda: [*convert, marian, dest, "--to", "flax", *safe],
        "convert, Flax to Marian": lambda: [*convert, flax, dest, "--to", "marian"],
        "by hand in torch": lambda: [python, "-c", BY_HAND, marian, dest],
    }


def compare(place: Path, rounds: int) -> dict[str, list[tuple[float, int]]]:
    made = commands(place)
    subprocess.run(
        [sys.executable, "-m", "convert", str(place / "marian"), str(place / "flax"),
         "--to", "flax", "--container", "safetensors"], cwd=ROOT, check=True,
    )  # fmt: skip
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in made}
    for number in range(1, rounds + 1):
        for name, command in made.items():
            os.sync()
            results[name].append(measured(command()))
            shutil.rmtree(place / "out")
            seconds, peak = results[name][-1]
            print(f"round {number}: {name}: {seconds:.1f} s, {peak / 2**20:,.0f} MiB", flush=True)
    return results


def report(results: dict[str, list[tuple[float, int]]], size: int, largest: int) -> list[str]:
    copies = statistics.median(s for s, _ in results["cp"])
    synced = statistics.median(s for s, _ in results["cp and sync"])
    lines = [
        f"{size / GB:.2f} GB, largest tensor {largest / 2**20:,.0f} MiB, bound of memory "
        f"{300 + 2 * largest / 2**20:,.0f} MiB",
        f"{'':<26}{'seconds':>9}{'of cp':>8}{'of cp and sync':>16}{'peak MiB':>10}",
    ]
    for name, runs in results.items():
        seconds = statistics.median(s for s, _ in runs)
        peak = max(p for _, p in runs)
        lines.append(
            f"{name:<26}{seconds:>9.1f}{seconds / copies:>8.1f}{seconds / synced:>16.1f}"
            f"{peak / 2**20:>10,.0f}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the checkpoint [4]")
    parser.add_argument("--rounds", type=int, default=3, help="times that all are run [3]")
    parser.add_argument("--folder", type=Path, help="where to write; needs 3 times the size free")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        place = Path(name)
        size, largest = generate(place / "marian", int(options.gigabytes * GB))
        print("\n".join(report(compare(place, options.rounds), size, largest)))


if __name__ == "__main__":
    main()
