"""python benchmarks/convert.py: time and memory of a conversion, beside ``cp`` and beside torch.

A checkpoint with the shapes of a large Marian model is generated in shards, then converted to Flax
names and back, each way in a fresh process: by ``python -m convert`` (every tensor hashed on both
sides, everything forced onto the disk), and by what people write themselves (load the state dict in
torch, transpose, save; neither hashed nor forced). ``cp`` copies the same bytes, without and with
waiting for the disk. ``hashing alone`` is SHA-256 of as many bytes as a conversion hashes, on all
cores, with nothing else: no conversion that hashes is faster.

All is measured with the source in memory and with the source on the disk only. Runs of one round
follow each other, so that ratios compare like with like; the median of the rounds is printed.
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
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# As a script this file's own folder comes first, where ``convert`` would be this very file.
sys.path[0] = str(ROOT)

from convert.core.tensors import Header, Tensors  # noqa: E402
from convert.families.huggingface.marian import Marian  # noqa: E402
from convert.formats.safetensors import write_sharded  # noqa: E402
from transformer_spec import TransformerConfig  # noqa: E402

DESCRIPTION = "Time and memory of conversions of a large model, beside cp and beside torch."
GB = 10**9
STATES = ("memory", "disk")
HASHING = """
import hashlib, os, pathlib, sys
from concurrent.futures import ThreadPoolExecutor
files = sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors"))
def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
with ThreadPoolExecutor(os.cpu_count()) as pool:
    list(pool.map(digest, files * 2))
"""
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


def commands(place: Path) -> dict[str, tuple[str, list[str]]]:
    """What is compared, in the order in which a round runs it: the source's name, the command."""
    python, dest = sys.executable, str(place / "out")
    marian, flax = str(place / "marian"), str(place / "flax")
    convert = [python, "-m", "convert"]
    safe = ["--container", "safetensors"]
    copy = f"cp -r {marian} {dest}"
    return {
        "cp": ("marian", ["sh", "-c", copy]),
        "cp and sync": ("marian", ["sh", "-c", f"{copy} && sync -f {dest}"]),
        "convert, Marian to Flax": ("marian", [*convert, marian, dest, "--to", "flax", *safe]),
        "convert, Flax to Marian": ("flax", [*convert, flax, dest, "--to", "marian"]),
        "by hand in torch": ("marian", [python, "-c", BY_HAND, marian, dest]),
        "hashing alone": ("marian", [python, "-c", HASHING, marian]),
    }


def prepare(source: Path, state: str) -> None:
    """Have a folder's files in memory, or not in memory."""
    os.sync()
    for path in (path for path in source.rglob("*") if path.is_file()):
        with open(path, "rb", buffering=0) as file:
            if state == "disk":
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 22):
                    pass


Results = dict[str, list[tuple[float, int]]]


def compare(place: Path, rounds: int) -> dict[str, Results]:
    """Seconds and peak bytes of every run, by where the source was and by command."""
    made = commands(place)
    subprocess.run(
        [sys.executable, "-m", "convert", str(place / "marian"), str(place / "flax"),
         "--to", "flax", "--container", "safetensors", "--shard-size", "500MB"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    results: dict[str, Results] = {state: {name: [] for name in made} for state in STATES}
    for number in range(1, rounds + 1):
        for state, found in results.items():
            for name, (source, command) in made.items():
                prepare(place / source, state)
                found[name].append(measured(command))
                shutil.rmtree(place / "out", ignore_errors=True)
                seconds, peak = found[name][-1]
                line = f"round {number}, in {state}: {name}: {seconds:.1f} s"
                print(f"{line}, {peak / 2**20:,.0f} MiB", flush=True)
    return results


def report(results: dict[str, Results], size: int, largest: int) -> list[str]:
    lines = [
        f"{size / GB:.2f} GB, largest tensor {largest / 2**20:,.0f} MiB, bound of memory "
        f"{300 + 2 * largest / 2**20:,.0f} MiB, {os.cpu_count()} cores",
    ]
    for state, found in results.items():
        median = {name: statistics.median(s for s, _ in runs) for name, runs in found.items()}
        head = f"source in memory or on disk: {state}"
        lines.append(f"{head:<34}{'seconds':>9}{'of cp':>8}{'of cp and sync':>16}{'peak MiB':>10}")
        for name, seconds in median.items():
            peak = max(p for _, p in found[name])
            lines.append(
                f"{name:<34}{seconds:>9.1f}{seconds / median['cp']:>8.1f}"
                f"{seconds / median['cp and sync']:>16.1f}{peak / 2**20:>10,.0f}"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=DESCRIPTION)
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
