"""Compile the programs with Google's TPU compiler and say what it says of them: a process apart.

``python -m parity.tpu.compilation REQUEST`` takes a JSON object and writes one JSON object a line.
request.py starts it with the environment that libtpu must find at its start.
"""

import json
import re
import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import jax

from parity.tpu.precision import asked
from parity.tpu.programs import Program, Task, chips_of, programs
from parity.tpu.report import Compiled, Memory
from parity.tpu.request import Request
from training_recipe.distributed.mesh import Mesh
from training_recipe.options.settings import TrainingSettings

# A v5e chip has 16 GB, of which the compiler leaves this much to a program and says so when one
# needs more.
CHIP_BYTES = int(15.75 * 2**30)
TOO_LARGE = "RESOURCE_EXHAUSTED"
COLLECTIVE = re.compile(
    r"= .*? (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
QUICK = {"exec_time_optimization_effort": -1.0}


def main(request: Request) -> None:
    settings = TrainingSettings(**request.settings)
    sizes = request.config, settings, request.batch, request.length, request.beam
    for topology in request.topology:
        mesh = request.mesh_on(topology)
        for program in programs(Task(*sizes, chips_of(topology), mesh)):
            if program.name in request.programs:
                row = measure(program, mesh, request)
                print(json.dumps(row.to_dict()), flush=True)


def measure(program: Program, mesh: Mesh, request: Request) -> Compiled:
    """What a program asks for and what the compiler says of it; figures are those of one chip.

    Where products are to be bfloat16, their precision is no fault.
    """
    traced, chips = program.trace(), mesh.devices
    found = asked(traced.jaxpr.jaxpr)
    if request.in_bfloat16:
        found = replace(found, faults=())
    start = time.perf_counter()
    try:
        compiled = traced.lower().compile(QUICK if request.effort == "low" else None)
    except jax.errors.JaxRuntimeError as error:
        if TOO_LARGE not in str(error):
            raise
        faults = (*found.faults, too_large(str(error)))
        return Compiled(program.name, str(mesh), chips, found.products, found.flops, faults)
    cost = compiled.cost_analysis()
    return Compiled(
        program.name,
        str(mesh),
        chips,
        found.products,
        found.flops,
        found.faults,
        time.perf_counter() - start,
        cost.get("flops"),
        cost.get("bytes accessed"),
        memory_of(compiled.memory_analysis(), program.held),
        collectives_in(compiled.as_text()),
    )


def collectives_in(program: str) -> dict[str, int]:
    """How often a compiled program has each kind of collective; a loop's body counts once."""
    return dict(sorted(Counter(COLLECTIVE.findall(program)).items()))


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
