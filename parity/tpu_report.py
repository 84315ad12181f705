"""What the TPU compiler said of each program, as text."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

MOST_FAULTS = 5


def text_of(row: dict[str, Any]) -> list[str]:
    """A program's report, in lines."""
    chips = f"{row['chips']} chip{'s' if row['chips'] > 1 else ''}"
    lines = [f"{row['program']}, v5e, {chips}: {'PASS' if row['passed'] else 'FAIL'}"]
    if "memory" in row:
        lines += [*cost_lines(row), *product_lines(row)]
    lines += [f"  {fault}" for fault in row["faults"][:MOST_FAULTS]]
    hidden = len(row["faults"]) - MOST_FAULTS
    return [*lines, f"  and {hidden} more"] if hidden > 0 else lines


def cost_lines(row: dict[str, Any]) -> Iterator[str]:
    memory = {name: megabytes(count) for name, count in row["memory"].items()}
    yield (
        f"  compiled in {row['compile_seconds']:.0f} s; {row['flops'] / 1e9:.1f} GFLOP, "
        f"{row['bytes_accessed'] / 1e9:.2f} GB accessed on a chip, one turn of each loop"
    )
    yield (
        f"  MB on a chip: arguments {memory['arguments']}, outputs {memory['outputs']} "
        f"({memory['outputs_in_place_of_arguments']} of them in place of arguments), "
        f"temporary {memory['temporary']}, code {memory['code']}, peak {memory['peak']}, "
        f"held beside {memory['held_beside']}"
    )
    fits = "fits" if row["fits"] else "does not fit"
    yield f"  {memory['total']} MB of {memory['chip']} MB: {fits}"


def product_lines(row: dict[str, Any]) -> Iterator[str]:
    asked = row["asked"]
    written = ", ".join(f"{count} {name}" for name, count in asked["precision"].items())
    yield (
        f"  products asked for: {written or 'none'} ({asked['flops'] / 1e9:.1f} GFLOP on all "
        f"chips, every turn of counted loops); compiled: {len(row['products'])}"
    )
    kinds = Counter(map(kind_of, row["products"]))
    yield from (f"    {count:4d}  {kind}" for kind, count in kinds.items())


def kind_of(product: dict[str, Any]) -> str:
    """As "f32[60,512] x f32[512,512] -> f32[60,512]  highest"."""
    precision = "/".join(dict.fromkeys(product["precision"]))
    return f"{' x '.join(product['operands'])} -> {product['result']}  {precision}"


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f}"


def verdict(rows: list[dict[str, Any]], request: dict[str, Any]) -> str:
    failed = [f"{row['program']} on {row['chips']}" for row in rows if not row["passed"]]
    given = f"batch {request['batch']} x {request['length']}, effort {request['effort']}"
    if failed:
        return f"FAIL ({given}): {', '.join(failed)}"
    count = sum(len(row["products"]) for row in rows)
    return f"PASS ({given}): every program fits; all {count} products are float32 at highest"
