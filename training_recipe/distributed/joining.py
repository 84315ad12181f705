"""What a command says of the processes that it is to be one of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training_recipe.distributed.mesh import Mesh

MODES = ("auto", "jax", "torchrun", "off")
JOIN_TIMEOUT = 1800  # seconds: some processes start, import and compile later than others
# What torchrun says to each process that it starts.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def is_launched(environment: Mapping[str, str]) -> bool:
    """Whether there are others by what torchrun sets, even if that is not all of it.

    One of one process that is not told of any address is alone.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return False
    return environment["WORLD_SIZE"] != "1" or all(name in environment for name in TORCHRUN)


@dataclass(frozen=True)
class Joining:
    """How a process finds the others, and how all devices are to stand; None is for the usual.

    ``mode`` auto joins where RANK and WORLD_SIZE say that torchrun started this process; jax asks
    ``jax.distributed.initialize``, which knows SLURM, Open MPI, TPU VMs and GKE, or is told
    ``coordinator_address``, ``num_processes`` and ``process_id``.
    """

    mode: str = "auto"
    device: str = "auto"
    mesh: Mesh | None = None
    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    timeout: int = JOIN_TIMEOUT

    def is_asked(self, environment: Mapping[str, str]) -> bool:
        """Whether there is more than a lone process on its one device to be found."""
        if self.mesh is not None or self.mode in ("jax", "torchrun"):
            return True
        return self.mode == "auto" and is_launched(environment)
