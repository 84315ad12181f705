"""Compile the programs with Google's TPU compiler and say what it says of them: a process apart.

``python -m parity.tpu.compilation REQUEST`` takes a JSON object and writes one JSON object a line.
request.py starts it with the environment that libtpu must find at its start.
"""

import json
import sys
import time
from typing import Any

import jax

from parity.tpu.precision import asked
from parity.tpu.programs import Program, Task, chips_of_v5e, programs
from parity.tpu.report import Compiled, Memory
from parity.tpu.request import Request

# A v5e chip has 16 GB, of which the compiler leaves this much to a program and says so when one
# needs more.
CHIP_BYTES = int(15.75 * 2**30)
TOO_LARGE = "RESOURCE_EXHAUSTED"
QUICK = {"exec_time_optimization_effort": -1.0}


def main(request: Request) -> None:
    for chips in request.chips:
        devices = chips_of_v5e(chips)
        task = Task(request.config, request.batch, request.length, request.beam, devices)
        for program in programs(task):
            if program.name in request.programs:
                row = measure(program, chips, request.effort)
                print(json.dumps(row.to_dict()), flush=True)


def measure(program: Program, chips: int, effort: str) -> Compiled:
    """What a program asks for and what the compiler says of it; figures are those of one chip."""
    traced = program.trace()
    found = asked(traced.jaxpr.jaxpr)
    start = time.perf_counter()
    try:
        compiled = traced.lower().compile(QUICK if effort == "low" else None)
    except jax.errors.JaxRuntimeError as error:
        if TOO_LARGE not in str(error):
            raise
        faults = (*found.faults, too_large(str(error)))
        return Compiled(program.name, chips, found.products, found.flops, faults)
    cost = compiled.cost_analysis()
    return Compiled(
        program.name,
        chips,
        found.products,
        found.flops,
        found.faults,
        time.perf_counter() - start,
        cost.get("flops"),
        cost.get("bytes accessed"),
        memory_of(compiled.memory_analysis(), program.held),
    )


def memory_of(stats: Any, held: int) -> Memory:
    return Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        outputs_in_place_of_arguments=stats.alias_size_in_bytes,
        temporary=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        peak=stats.peak_memory_in_bytes,
        held_beside=held,
        chip=CHIP_BYTES,
    )


def too_large(message: str) -> str:
    """What the compiler said of a program that it could not fit into a chip."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return f"does not fit: {next((x for x in lines if 'memory' in x.lower()), lines[0])}"


if __name__ == "__main__":
    main(Request.from_dict(json.loads(sys.argv[1])))
