"""The processes that train one run together, found by torchrun, the twin of flax_transformer's.

Each process computes on one device. Numbers of the model go over NCCL between GPUs and over gloo
between processors; what else the processes tell each other always goes over gloo.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.distributed_c10d import PrefixStore, Store

from torch_transformer.process import find_device
from training_recipe.distributed.joining import TORCHRUN, Joining, is_launched
from training_recipe.distributed.mesh import REST, Mesh
from training_recipe.distributed.processes import Alone, Processes, World
from transformer_spec import UserError

AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"  # torchrun itself serves the address
ATTEMPT = "TORCHELASTIC_RESTART_COUNT"
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out", re.I)
START = "start it by torchrun --standalone --nproc-per-node {}, and what follows python now"
INTERVAL, LONG = 0.2, 10.0  # seconds between looks for the others, and until it is said
PATIENCE = timedelta(days=7)  # others may read and encode for long; of one that ends gloo tells
STUCK = timedelta(minutes=30)  # without a word on the devices, where all compute the same


@dataclass(frozen=True)
class Place:
    """What torchrun says to a process: which of how many it is, and where all meet."""

    rank: int
    count: int
    local_rank: int
    host: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


class TorchProcesses(Processes):
    """Processes in a group of torch.distributed, with a gloo group for what is no tensor."""

    def __init__(self) -> None:
        self.index, self.count = dist.get_rank(), dist.get_world_size()
        with reaching_all():
            host = dist.new_group(backend="gloo", timeout=PATIENCE)
        assert isinstance(host, dist.ProcessGroup)
        self.host = host

    def gather(self, value: Any) -> list[Any]:
        given: list[Any] = [None] * self.count
        with reaching_all():
            dist.all_gather_object(given, value, self.host)
        return given

    def broadcast(self, value: Any) -> Any:
        given = [value]
        with reaching_all():
            dist.broadcast_object_list(given, 0, self.host)
        return given[0]

    def largest(self, number: int) -> Callable[[], int]:
        found = torch.tensor(number)
        with reaching_all():
            work = dist.all_reduce(found, dist.ReduceOp.MAX, self.host, async_op=True)

        def wait() -> int:
            with reaching_all():
                assert work is not None
                work.wait()
            return int(found)

        return wait

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


def join(joining: Joining) -> World:
    """Join the other processes that torchrun started, and lay the mesh over their devices.

    A process that torchrun did not start is alone. Raises UserError where the others do not come,
    where a device is missing, and where the mesh is of another number of devices.
    """
    if joining.mode == "jax" and joining.coordinator_address is not None:
        raise UserError(of_jax("--coordinator-address", joining.mesh))
    place = find_place(joining.mode, os.environ, joining.mesh)
    if place is None or place.count == 1:
        return World(Alone(), mesh_of_one(joining.mesh))
    mesh = (joining.mesh or Mesh(data=REST)).on(place.count)
    device = own_device(joining.device, place.local_rank)
    meet(place, device, timedelta(seconds=joining.timeout))
    return World(TorchProcesses(), mesh)


def find_place(mode: str, environment: Mapping[str, str], mesh: Mesh | None = None) -> Place | None:
    """Where torchrun put this process, None where it is alone."""
    if mode == "jax":
        raise UserError(of_jax("--distributed jax", mesh))
    if mode == "off" or (mode == "auto" and not is_launched(environment)):
        return None
    missing = [name for name in TORCHRUN if not environment.get(name)]
    if missing:
        raise UserError(
            f"this process cannot join others: the environment lacks {', '.join(missing)}, which "
            f"torchrun sets; {starting(mesh)}, or give --distributed off for a process of its own"
        )
    return Place(*(_value(environment, name) for name in TORCHRUN))


def of_jax(flag: str, mesh: Mesh | None) -> str:
    """That a flag is of the other framework, and what to do in PyTorch."""
    return (
        f"{flag} is of the jax backend; PyTorch's processes are joined by --distributed torchrun: "
        f"{starting(mesh)}"
    )


def starting(mesh: Mesh | None) -> str:
    """How a process for each device of a mesh is started; N of them where it names no number."""
    if mesh is None or REST in (mesh.data, mesh.fsdp):
        return START.format("N")
    return START.format(mesh.devices)


def _value(environment: Mapping[str, str], name: str) -> Any:
    value = environment[name]
    if name == "MASTER_ADDR":
        return value
    if not value.isdecimal():
        raise UserError(f"the environment says {name}={value}; torchrun sets a whole number")
    return int(value)


def mesh_of_one(mesh: Mesh | None) -> Mesh:
    """The mesh of a process that is alone; one of more devices is a UserError."""
    try:
        return (mesh or Mesh()).on(1)
    except UserError as error:
        raise UserError(
            f"{error}; PyTorch has one process for each device, and this process is alone: "
            f"{starting(mesh)}"
        ) from None


def own_device(name: str, local_rank: int) -> torch.device:
    """This process's device, a GPU of its own where there are GPUs; none left is a UserError."""
    device = find_device(name)
    if device.type == "cuda":
        there = torch.cuda.device_count()
        if local_rank >= there:
            raise UserError(
                f"process {local_rank} of this machine has no GPU of its own: PyTorch sees "
                f"{there}; start at most {there} here (--nproc-per-node {there}), or give "
                "--device cpu"
            )
        torch.cuda.set_device(local_rank)
    return device


def meet(place: Place, device: torch.device, timeout: timedelta) -> None:
    """Make the process group of all, once all are there; else a UserError that says who came."""
    try:
        store = PrefixStore(f"twinformer/{os.environ.get(ATTEMPT, 0)}", open_store(place, timeout))
        store.set(_here(place.rank), "1")
        wait_for_all(store, place, timeout)
        dist.init_process_group(
            BACKENDS[device.type],
            store=PrefixStore("group", store),
            rank=place.rank,
            world_size=place.count,
            timeout=max(timeout, STUCK),
        )
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise UserError(
            f"process {place.rank} of {place.count} could not join the others at {place.address}: "
            f"{str(error).splitlines()[0]}; {LOOK}"
        ) from error


LOOK = (
    "look whether every process was started and what each of them printed, whether all were given "
    "this address, and whether a firewall closes its port; --join-timeout waits longer"
)


def open_store(place: Place, timeout: timedelta) -> Store:
    """The table at the address that all write into; the first process serves it, or torchrun."""
    serves = place.rank == 0 and os.environ.get(AGENT_STORE) != "True"
    if not serves:
        wait_for_address(place, timeout)
    return TCPStore(
        place.host,
        place.port,
        place.count,
        is_master=serves,
        timeout=timeout,
        wait_for_workers=False,
    )


def wait_for_address(place: Place, timeout: timedelta) -> None:
    """Return when somebody listens at the address; in between a signal is heard."""
    for waited in waiting(timeout):
        with contextlib.suppress(OSError), socket.create_connection((place.host, place.port), 1):
            return
        say_after(waited, f"nobody listens at {place.address} yet", timeout)
    raise UserError(
        f"process {place.rank} of {place.count} could not join the others at {place.address}: "
        f"nobody listened there within {timeout.total_seconds():.0f} seconds; {LOOK}"
    )


def _here(rank: int) -> str:
    return f"here/{rank}"


def wait_for_all(store: Store, place: Place, timeout: timedelta) -> None:
    """Return when every process is there; a UserError counts those that came in time.

    In between a signal is heard.
    """
    came = who = ""
    for waited in waiting(timeout):
        missing = [rank for rank in range(place.count) if not store.check([_here(rank)])]
        if not missing:
            return
        came = f"{place.count - len(missing)} of {place.count} processes came to {place.address}"
        who = f"missing: {', '.join(map(str, missing))}"
        say_after(waited, f"{came} so far; {who}", timeout)
    raise UserError(f"{came} within {timeout.total_seconds():.0f} seconds; {who}; {LOOK}")


def waiting(timeout: timedelta) -> Iterator[float]:
    """The seconds waited so far, at short intervals and at least once, until the time is over."""
    begun, seconds = time.monotonic(), timeout.total_seconds()
    while True:
        waited = time.monotonic() - begun
        yield waited
        if waited >= seconds:
            return
        time.sleep(min(INTERVAL, max(seconds - waited, 0)))


def say_after(waited: float, what: str, timeout: timedelta) -> None:
    """One line to standard error, once it is long that one waits."""
    if LONG <= waited < LONG + INTERVAL:
        print(f"{what}; waiting up to {timeout.total_seconds():.0f} seconds", file=sys.stderr)


def is_lost(error: RuntimeError) -> bool:
    """Whether an error says that another process cannot be reached."""
    return isinstance(error, dist.DistError) or LOST.search(str(error)) is not None


@contextlib.contextmanager
def reaching_all() -> Iterator[None]:
    """A block in which processes wait for each other; where one has gone, a UserError."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise UserError(
            "another process ended, or its machine cannot be reached any more "
            f"({str(error).splitlines()[0]}); look at what the other processes printed, then start "
            "all of them again: --resume goes on from the last checkpoint"
        ) from error
