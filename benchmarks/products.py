"""python benchmarks/products.py: PyTorch's float32 products by its BLAS and by oneDNN, one thread.

GFLOP/s of processor time, so that what else the machine does counts less: x @ weight.T, the
gradient of x and that of the weight, as torch_transformer/products.py has them. Without AVX-512
it leaves gradients of weights with sides alike to the BLAS, and both figures are the BLAS's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch  # noqa: E402

from torch_transformer import products  # noqa: E402

# N rows, I features of x, O of the output.
SHAPES = (
    (3840, 256, 256), (3840, 256, 1024), (3840, 1024, 256), (400, 256, 10_000), (4096, 128, 128),
    (160, 512, 2048), (5, 512, 512),
)  # fmt: skip


def rate(work: float, compute: Callable[[], object], seconds: float) -> float:
    """GFLOP/s of the fastest of five stretches of so many seconds."""
    best = 0.0
    for _ in range(5):
        began, count = time.process_time(), 0
        while time.process_time() - began < seconds:
            compute()
            count += 1
        best = max(best, count * work / (time.process_time() - began))
    return best / 1e9


def measured(N: int, I: int, O: int, seconds: float) -> list[tuple[float, float]]:  # noqa: E741
    """By the BLAS and by oneDNN: forward, the gradient of x, that of the weight."""
    x, weight, upstream = torch.randn(N, I), torch.randn(O, I), torch.randn(N, O)
    both: Sequence[tuple[Callable[[], object], Callable[[], object]]] = (
        (lambda: x @ weight.T, lambda: products.product(x, weight)),
        (lambda: upstream @ weight, lambda: products.product(upstream, weight.T)),
        (lambda: upstream.T @ x, lambda: products.transposed_product(upstream, x)),
    )
    work = 2.0 * N * I * O
    return [(rate(work, blas, seconds), rate(work, one, seconds)) for blas, one in both]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Float32 products by the BLAS and by oneDNN.")
    parser.add_argument("--seconds", type=float, default=0.1, help="a stretch of measuring")
    seconds = parser.parse_args(arguments).seconds
    if products.ONEDNN is None:
        print("this PyTorch has no oneDNN")
        return 1
    torch.set_num_threads(1)
    print(
        f"{products.vendor()}, {torch.backends.cpu.get_cpu_capability()}; GFLOP/s, BLAS and oneDNN"
    )
    print(f"{'N, I, O':>20}{'forward':>14}{'of x':>14}{'of weights':>14}")
    for shape in SHAPES:
        found = "".join(f"{a:8.0f},{b:5.0f}" for a, b in measured(*shape, seconds))
        print(f"{', '.join(map(str, shape)):>20}{found}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
