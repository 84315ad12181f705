"""Compile the programs with Google's TPU compiler and say what it says of them: a process apart.

``python -m parity.tpu_compile REQUEST`` takes a JSON object and writes one JSON object a line.
parity/tpu_command.py starts it with the environment that libtpu must find at its start.
"""

import json
import sys
import time
from collections import Counter
from typing import Any

import jax

from parity.one_pass import every_product
from parity.tpu_products import faults, products
from parity.tpu_programs import Program, Task, chips_of_v5e, programs
from transformer_spec import TransformerConfig

# A v5e chip has 16 GB, of which the compiler leaves this much to a program and says so when one
# needs more.
CHIP_BYTES = int(15.75 * 2**30)
TOO_LARGE = "RESOURCE_EXHAUSTED"
QUICK = {"exec_time_optimization_effort": -1.0}
DOT = "dot_general"


def main(request: dict[str, Any]) -> None:
    config = TransformerConfig.from_dict(request["config"])
    for chips in request["chips"]:
        devices = chips_of_v5e(chips)
        task = Task(config, request["batch"], request["length"], request["beam"], devices)
        for program in programs(task):
            if program.name in request["programs"]:
                row = {"chips": chips} | measure(program, request["effort"])
                print(json.dumps(row), flush=True)


def measure(program: Program, effort: str) -> dict[str, Any]:
    """What the compiler says of a program: cost, memory, products, seconds."""
    traced = program.trace()
    row: dict[str, Any] = {"program": program.name, "asked": asked(traced.jaxpr.jaxpr)}
    start = time.perf_counter()
    try:
        compiled = traced.lower().compile(QUICK if effort == "low" else None)
    except jax.errors.JaxRuntimeError as error:
        if TOO_LARGE not in str(error):
            raise
        return row | too_large(str(error))
    seconds = time.perf_counter() - start
    wrong = asked_faults(row["asked"]["precision"])
    return row | {"compile_seconds": seconds} | report(compiled, program.held, wrong)


def report(compiled: Any, held: int, wrong: list[str]) -> dict[str, Any]:
    """Cost, memory and products of a compiled program; all figures are those of one chip."""
    text, cost = compiled.as_text(), compiled.cost_analysis()
    memory = memory_of(compiled.memory_analysis(), held)
    found, wrong = products(text), wrong + faults(text)
    return {
        "flops": cost.get("flops"),
        "bytes_accessed": cost.get("bytes accessed"),
        "memory": memory,
        "fits": memory["total"] <= CHIP_BYTES,
        "products": [product.to_dict() for product in found],
        "faults": wrong,
        "passed": memory["total"] <= CHIP_BYTES and not wrong,
    }


def memory_of(stats: Any, held: int) -> dict[str, int]:
    """Bytes on one chip; ``total`` is everything that may be there at one time, and the peak."""
    arguments, outputs = stats.argument_size_in_bytes, stats.output_size_in_bytes
    temporary, code = stats.temp_size_in_bytes, stats.generated_code_size_in_bytes
    shared, peak = stats.alias_size_in_bytes, stats.peak_memory_in_bytes
    sum_of_parts = arguments + outputs - shared + temporary + code
    return {
        "arguments": arguments,
        "outputs": outputs,
        "outputs_in_place_of_arguments": shared,
        "temporary": temporary,
        "code": code,
        "peak": peak,
        "held_beside": held,
        "total": max(sum_of_parts, peak) + held,
        "chip": CHIP_BYTES,
    }


def too_large(message: str) -> dict[str, Any]:
    """The row of a program that the compiler could not fit into a chip."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = next((line for line in lines if "memory" in line.lower()), lines[0])
    return {"fits": False, "passed": False, "faults": [f"does not fit: {said}"], "products": []}


def asked(jaxpr: Any) -> dict[str, Any]:
    """Products as the model asks for them: how many of each precision, and their operations."""
    found = [pair for pair in every_product(jaxpr) if pair[0].primitive.name == DOT]
    precisions = Counter(precision_of(equation) for equation, _ in found)
    return {
        "products": len(found),
        "precision": dict(precisions),
        "flops": sum(turns * operations(equation) for equation, turns in found),
    }


def asked_faults(precisions: dict[str, int]) -> list[str]:
    """Also what the compiler happened to compute exactly has to be asked for in full."""
    return [
        f"the model asks for {count} products at precision {name}, not highest"
        for name, count in precisions.items()
        if name != "highest"
    ]


def precision_of(equation: Any) -> str:
    given = equation.params["precision"]
    pair = given if isinstance(given, tuple) else (given, given)
    return "/".join(dict.fromkeys(str(entry or "default").lower() for entry in pair))


def operations(equation: Any) -> int:
    """Multiplications and additions of a product: two for each term of each sum."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    terms = 1
    for axis in contracted:
        terms *= equation.invars[0].aval.shape[axis]
    return 2 * terms * equation.outvars[0].aval.size


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
