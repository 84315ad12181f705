"""Processes that JAX's own runtime joins, the twin of torch_transformer/processes.py."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax

from flax_transformer.process import find_devices
from training_recipe.distributed.joining import TORCHRUN, Joining, is_launched
from training_recipe.distributed.mesh import Mesh
from training_recipe.distributed.processes import Alone, Processes, World
from transformer_spec import UserError

HEARTBEAT = 30  # seconds of silence after which a process counts as dead
GOODBYE = 20  # seconds to wait for the others at the end
HEARING = 0.2  # seconds between two looks for signals
NAMED = "say who they are: --coordinator-address HOST:PORT --num-processes N --process-id I"
# In what JAX says of a process that does not answer, on processors and on accelerators.
LOST = re.compile(r"gloo|nccl|connection|coordination|barrier|UNAVAILABLE|DEADLINE", re.IGNORECASE)
PATIENCE = 7 * 24 * 3600 * 1000  # milliseconds: others may read and encode for long
LOOK = (
    "look whether all processes were started, by the same command but for --process-id, and "
    "whether this address can be reached from their machines (host name, port, firewall, proxy)"
)


def join(joining: Joining) -> World:
    """Join the other processes, where there are any, and find the devices of all.

    Has to come before anything touches a device. What prevents it is one UserError, in every
    process that was started.
    """
    settings = _settings(joining)
    processes = Alone() if settings is None else _joined(settings, joining)
    devices = len(find_devices(joining.device))
    if joining.mesh is None:
        mesh = Mesh() if processes.count == 1 else Mesh(data=devices)
    else:
        mesh = _laid(joining.mesh, devices)
    return World(processes, mesh)


def _laid(mesh: Mesh, devices: int) -> Mesh:
    """The mesh over so many devices; an error also says how processors become more of them."""
    try:
        return mesh.on(devices)
    except UserError as error:
        if jax.default_backend() != "cpu":
            raise
        more = "XLA_FLAGS=--xla_force_host_platform_device_count=N makes N devices of processors"
        raise UserError(f"{error}; {more}") from None


def _settings(joining: Joining) -> dict[str, Any] | None:
    """What ``jax.distributed.initialize`` is to be told; None where there is nobody to join."""
    if joining.mode == "off" or (joining.mode == "auto" and not is_launched(os.environ)):
        return None
    if joining.mode == "jax":
        given = {
            "coordinator_address": joining.coordinator_address,
            "num_processes": joining.num_processes,
            "process_id": joining.process_id,
        }
        return {name: value for name, value in given.items() if value is not None}
    missing = [name for name in TORCHRUN if name not in os.environ]
    if missing:
        raise UserError(
            f"this process cannot join others: the environment lacks {', '.join(missing)}, which "
            "torchrun sets; start it by torchrun, give --distributed jax, or --distributed off for "
            "a process of its own"
        )
    # torchrun itself listens at MASTER_PORT.
    port = int(os.environ["MASTER_PORT"]) + 1
    return {
        "coordinator_address": f"{os.environ['MASTER_ADDR']}:{port}",
        "num_processes": int(os.environ["WORLD_SIZE"]),
        "process_id": int(os.environ["RANK"]),
    }


def _joined(settings: dict[str, Any], joining: Joining) -> Processes:
    local = os.environ.get("LOCAL_RANK") if joining.mode != "jax" else None
    if local is not None and joining.device != "cpu":
        settings = settings | {"local_device_ids": [int(local)]}
    where = settings.get("coordinator_address", "the address that JAX found")
    with _given_up_after(joining.timeout, f"cannot join the other processes at {where}"):
        try:
            _initialize(
                **settings,
                initialization_timeout=joining.timeout + GOODBYE,
                heartbeat_timeout_seconds=HEARTBEAT,
                shutdown_timeout_seconds=GOODBYE,
            )
        except (RuntimeError, ValueError) as error:
            reason, advice = str(error).splitlines()[0].rstrip("."), LOOK
            if "should be defined" in reason:
                reason, advice = "JAX found no SLURM, Open MPI, TPU or GKE here", NAMED
            elif "must be defined" in reason:
                reason, advice = f"JAX says: {reason}", NAMED
            raise UserError(
                f"cannot join the other processes at {where}: {reason}; {advice}"
            ) from None
    return JaxProcesses()


def _initialize(**settings: Any) -> None:
    """``jax.distributed.initialize``, which leaves Ctrl-C and SIGTERM to whoever hears them.

    It waits for the others in a thread, as Python hears no signal while its main thread does; and
    JAX's own service for SIGTERM would take the place of the command's.
    """
    jax.config.update("jax_enable_preemption_service", False)
    with ThreadPoolExecutor(1, "twinformer-join") as thread:
        joined = thread.submit(jax.distributed.initialize, **settings)
        # A wait is not ended by a signal that another thread gets, or that came just before it.
        while not wait([joined], timeout=HEARING).done:
            pass
        joined.result()


@contextlib.contextmanager
def _given_up_after(seconds: int, what: str) -> Iterator[None]:
    """A block after so many seconds of which the process ends with an error of one line.

    Where not all come, JAX's runtime ends the process itself, and nothing can be caught.
    """

    def give_up() -> None:
        late = f"after {seconds} seconds (--join-timeout) not all of them had come"
        os.write(2, f"error: {what}: {late}; {LOOK}\n".encode())
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class JaxProcesses(Processes):
    """Talks through the service that JAX's processes share, never through their devices.

    Values lie there under the number of the round, until every process has come to the next one.
    Of a process that is dead JAX's runtime tells the others, which it ends.
    """

    def __init__(self) -> None:
        from jax._src.distributed import global_state  # what Orbax talks through, too

        self.index, self.count = jax.process_index(), jax.process_count()
        self._client: Any = global_state.client
        self._rounds, self._checks, self._spoken = 0, 0, list[str]()
        self._thread = ThreadPoolExecutor(1, "twinformer-largest")

    def gather(self, value: Any) -> list[Any]:
        self._rounds += 1
        before, self._spoken = self._spoken, []
        self._say(f"gather/{self._rounds}/{self.index}", value)
        found = [self._hear(f"gather/{self._rounds}/{n}") for n in range(self.count)]
        for name in before:  # everybody is past them
            self._client.key_value_delete(name)
        return found

    def broadcast(self, value: Any) -> Any:
        self._rounds += 1
        name = f"broadcast/{self._rounds}"
        if self.first:
            self._say(name, value)
            return value
        return self._hear(name)

    def largest(self, number: int) -> Callable[[], int]:
        self._checks += 1
        result: Future[int] = self._thread.submit(self._largest, number, self._checks)
        return lambda: _asked(result.result)

    def _largest(self, number: int, check: int) -> int:
        folder = f"twinformer/largest/{check}"
        if number:
            self._client.key_value_set(f"{folder}/{self.index}", str(number))
        self._client.wait_at_barrier(f"twinformer-{check}", PATIENCE)
        return max((int(text) for _, text in self._client.key_value_dir_get(folder)), default=0)

    def _say(self, name: str, value: Any) -> None:
        name = f"twinformer/{name}"
        self._spoken.append(name)
        _asked(lambda: self._client.key_value_set_bytes(name, pickle.dumps(value)))

    def _hear(self, name: str) -> Any:
        get = self._client.blocking_key_value_get_bytes
        return pickle.loads(_asked(lambda: get(f"twinformer/{name}", PATIENCE)))

    def leave(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        jax.distributed.shutdown()


def _asked(ask: Callable[[], Any]) -> Any:
    """What the service answers; where it does not, a UserError."""
    with reaching_all():
        return ask()


@contextlib.contextmanager
def reaching_all() -> Iterator[None]:
    """A block that waits for the other processes; one that has gone is a UserError."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        if not LOST.search(str(error)):
            raise
        raise UserError(
            f"another process ended, or its machine cannot be reached any more ({reason}); its own "
            "output says why; start all again with --resume"
        ) from None


class Awaited:
    """A number on the devices of all processes, for which ``float`` waits."""

    def __init__(self, number: jax.Array) -> None:
        self.number = number

    def __float__(self) -> float:
        with reaching_all():
            return float(self.number)
