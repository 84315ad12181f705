"""What the TPU compiler said of each program, and what the program asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from parity.tpu.request import Request

MOST_LINES = 5
JUDGED = ("passed", "fits", "total")


@dataclass(frozen=True)
class Memory:
    """Bytes on one chip; ``total`` is everything that may be there at one time, and the peak."""

    arguments: int
    outputs: int
    outputs_in_place_of_arguments: int
    temporary: int
    code: int
    peak: int
    held_beside: int
    chip: int

    @property
    def total(self) -> int:
        parts = self.arguments + self.outputs - self.outputs_in_place_of_arguments
        return max(parts + self.temporary + self.code, self.peak) + self.held_beside

    @property
    def fits(self) -> bool:
        return self.total <= self.chip


@dataclass(frozen=True)
class Compiled:
    """One program on a mesh of chips; without ``memory`` the compiler could not fit it in.

    ``products`` counts the products that it asks for by kind, ``asked_flops`` all their operations;
    ``flops`` and ``bytes_accessed`` are the compiler's, of one chip and one turn of each loop.
    """

    program: str
    mesh: str
    chips: int
    products: Mapping[str, int]
    asked_flops: int
    faults: tuple[str, ...]
    compile_seconds: float = 0.0
    flops: float | None = None
    bytes_accessed: float | None = None
    memory: Memory | None = None
    collectives: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.memory is not None and self.memory.fits and not self.faults

    def to_dict(self) -> dict[str, Any]:
        judged = {"passed": self.passed, "fits": self.memory is not None and self.memory.fits}
        total = {} if self.memory is None else {"total": self.memory.total}
        return asdict(self) | judged | total

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Compiled:
        kept: dict[str, Any] = {k: v for k, v in content.items() if k not in JUDGED}
        if kept["memory"] is not None:
            kept["memory"] = Memory(**kept["memory"])
        kept["faults"] = tuple(kept["faults"])
        return cls(**kept)


def text_of(row: Compiled) -> list[str]:
    """A program's report, in lines."""
    chips = f"{row.chips} chips, mesh {row.mesh}" if row.chips > 1 else "1 chip"
    lines = [f"{row.program}, v5e, {chips}: {'PASS' if row.passed else 'FAIL'}"]
    if row.memory is not None:
        lines += [*cost_lines(row, row.memory), *collective_lines(row), *product_lines(row)]
    lines += [f"  {fault}" for fault in row.faults[:MOST_LINES]]
    hidden = len(row.faults) - MOST_LINES
    return [*lines, f"  and {hidden} more"] if hidden > 0 else lines


def cost_lines(row: Compiled, memory: Memory) -> Iterator[str]:
    yield (
        f"  compiled in {row.compile_seconds:.0f} s; {(row.flops or 0) / 1e9:.1f} GFLOP, "
        f"{(row.bytes_accessed or 0) / 1e9:.2f} GB accessed on a chip, one turn of each loop"
    )
    shared = megabytes(memory.outputs_in_place_of_arguments)
    yield (
        f"  MB on a chip: arguments {megabytes(memory.arguments)}, outputs "
        f"{megabytes(memory.outputs)} ({shared} of them in place of arguments), temporary "
        f"{megabytes(memory.temporary)}, code {megabytes(memory.code)}, peak "
        f"{megabytes(memory.peak)}, held beside {megabytes(memory.held_beside)}"
    )
    fits = "fits" if memory.fits else "does not fit"
    yield f"  {megabytes(memory.total)} MB of {megabytes(memory.chip)} MB: {fits}"


def collective_lines(row: Compiled) -> Iterator[str]:
    if row.chips > 1:
        kinds = (f"{count} {kind}" for kind, count in row.collectives.items())
        yield f"  between chips: {', '.join(kinds) or 'nothing'}"


def product_lines(row: Compiled) -> Iterator[str]:
    yield (
        f"  products: {sum(row.products.values())} ({row.asked_flops / 1e9:.1f} GFLOP on all "
        "chips, every turn of counted loops)"
    )
    yield from (f"    {count:4d}  {kind}" for kind, count in row.products.items())


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f}"


def verdict(rows: Sequence[Compiled], request: Request) -> str:
    """The result and its reason in one line."""
    given = f"batch {request.batch} x {request.length}, effort {request.effort}"
    failed = [row for row in rows if not row.passed]
    if failed:
        names = ", ".join(f"{row.program} on {row.chips}" for row in failed)
        reason = next(iter(failed[0].faults), "does not fit into a chip")
        return f"FAIL ({given}): {names}; {reason}"
    count = sum(sum(row.products.values()) for row in rows)
    exact = "bfloat16 as asked" if request.in_bfloat16 else "float32 at highest"
    return f"PASS ({given}): every program fits; all {count} products are {exact}"
