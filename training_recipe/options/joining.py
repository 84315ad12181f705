"""What a command is told of devices and of other processes, by flags that several commands have."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from training_recipe.distributed.joining import JOIN_TIMEOUT, MODES, Joining
from training_recipe.distributed.mesh import Mesh, read_mesh
from transformer_spec import UserError
from transformer_spec.declarations import (
    Declaration,
    declarations,
    in_group,
    range_fault,
    read_text,
)
from transformer_spec.errors import Faults

in_run = in_group("run")
COORDINATED = ("coordinator_address", "num_processes", "process_id")
ADDRESS = re.compile(r"\S+:\d{1,5}")


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """How devices stand, and how a process finds the others; text as flags give it."""

    mesh: str | None = in_run(
        "how devices stand, as in data=2,fsdp=8: so many copies of the weights, each split over so "
        "many devices; one number may be -1, the rest; none: one device, or data=-1 where there "
        "are several processes",
        None,
    )
    distributed: str = in_run(
        "whether this process is one of several; auto: where torchrun started it or a coordinator "
        "is named; jax: as jax.distributed.initialize finds out (SLURM, Open MPI, TPU, GKE)",
        "auto",
        choices=MODES,
    )
    coordinator_address: str | None = in_run(
        "HOST:PORT at which process 0 waits for the others, as jax.distributed names it", None
    )
    num_processes: int | None = in_run("how many processes there are, for jax", None, least=1)
    process_id: int | None = in_run("which of them this is, from 0, for jax", None, least=0)
    join_timeout: int = in_run("seconds to wait for the other processes", JOIN_TIMEOUT, least=1)


DEVICE_OPTIONS: dict[str, Declaration] = declarations(DeviceOptions)


def joining_of(asked: DeviceOptions, device: str) -> Joining:
    """What a command's flags say; one that names a coordinator is to join by JAX's means."""
    named = asked.coordinator_address is not None and asked.distributed == "auto"
    return Joining(
        mode="jax" if named else asked.distributed,
        device=device,
        mesh=None if asked.mesh is None else read_mesh(asked.mesh),
        coordinator_address=asked.coordinator_address,
        num_processes=asked.num_processes,
        process_id=asked.process_id,
        timeout=asked.join_timeout,
    )


def device_options(texts: dict[str, str], faults: Faults) -> DeviceOptions:
    """What flags say, by the names of the options; what is wrong with it is added to ``faults``."""
    values: dict[str, Any] = {}
    for name, text in texts.items():
        declaration = DEVICE_OPTIONS[name]
        try:
            value = read_text(declaration, text)
            fault = range_fault(declaration, value)
        except ValueError as error:
            value, fault = declaration.default, str(error)
        values[name] = value
        faults.require(fault is None, f"{declaration.flag}: {fault}")
    for fault in joining_faults(vars(DeviceOptions(**values))):
        faults.add(fault)
    return DeviceOptions(**values)


def check_whole(mesh: Mesh) -> None:
    """Raise UserError where weights would be split, as translating does not have them."""
    if mesh.fsdp != 1:
        raise UserError(
            f"--mesh {mesh} splits the weights, and translating needs the whole weights on each "
            "device: give data=N"
        )


def joining_faults(given: dict[str, Any]) -> list[str]:
    """What is wrong with what is said of devices and of other processes."""
    faults, mode, address = [], given["distributed"], given["coordinator_address"]
    if given["mesh"] is not None:
        try:
            read_mesh(given["mesh"])
        except UserError as error:
            faults += error.faults
    for name in [n for n in COORDINATED if given[n] is not None]:
        flag = DEVICE_OPTIONS[name].flag
        if mode in ("torchrun", "off"):
            faults.append(f"{flag} is for --distributed jax, not {mode}")
        elif address is None:
            faults.append(f"{flag} needs --coordinator-address HOST:PORT")
    if address is not None and not ADDRESS.fullmatch(address):
        faults.append(f"--coordinator-address {address!r} is no HOST:PORT, as in 10.0.0.1:29500")
    count, number = given["num_processes"], given["process_id"]
    if count is not None and number is not None and number >= count:
        faults.append(
            f"--process-id {number}: {count} processes are numbered from 0 to {count - 1}"
        )
    return faults
