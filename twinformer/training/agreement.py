"""What all processes of a run must have alike, and how one that has not is told of."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from training_recipe.arrays import checksums
from training_recipe.backend import Checkpoint
from training_recipe.batching.batches import BatchPlan
from training_recipe.distributed.processes import Processes, World
from training_recipe.files.writing import partial_path, remove
from training_recipe.options.request import ALL, Request
from training_recipe.preparation import Prepared
from training_recipe.runs.folder import RunFolder
from training_recipe.runs.record import library_versions
from transformer_spec import UserError
from twinformer.frameworks import OURS

OWN = ("process_id", "coordinator_address", "join_timeout")  # what a process may be told alone
LOOKS, PAUSE = 40, 0.25  # the last in seconds: network disks show new files late


def agree_on_command(request: Request, backend: str, world: World) -> None:
    """Raise a UserError in all processes where one was asked for something else than the first.

    So where one has other versions of the libraries or of this program.
    """
    if world.processes.count == 1:
        return
    given = {ALL[name].flag: value for name, value in request.given.items() if name not in OWN}
    run = {"--resume": request.invocation.resume, "the backend": backend}
    said = given | run | {"the mesh": str(world.mesh)} | versions()
    world.processes.agree("settings or versions", said)


def versions() -> dict[str, str]:
    """What has to be alike in all processes, by name."""
    return {**library_versions(), "this program": program()}


@functools.cache
def program() -> str:
    """A hash of the program's own files."""
    home, digest = Path(__file__).parents[2], hashlib.sha256()
    for path in sorted(part for package in OURS for part in (home / package).rglob("*.py")):
        digest.update(path.relative_to(home).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def agree_on_data(processes: Processes, prepared: Prepared) -> None:
    """Raise a UserError in all processes where one has read other data than the first."""
    if processes.count == 1:
        return
    read = {
        "training pairs": prepared.fingerprint[:16],
        "batches": prepared.plan.fingerprint[:16],
        "pairs to validate and test by": prepared.judged_fingerprint[:16],
    }
    processes.agree("the data", read)


def agree_on_weights(processes: Processes, state: Checkpoint) -> None:
    """Raise a UserError in all processes where one begins with other weights than the first."""
    if processes.count == 1:
        return
    with processes.together():
        found = checksums(state.weights)
    processes.agree("the weights to begin with", found)


def shared_name(processes: Processes) -> str | None:
    """What the processes of a host hold the data by, which no other run has; None: one is alone."""
    return processes.broadcast(secrets.token_hex(8)) if processes.count > 1 else None


def check_shared(run: RunFolder, processes: Processes) -> None:
    """Raise a UserError in all processes where one does not see the folder that the first sees."""
    if processes.count == 1:
        return
    with processes.by_the_first(_token(run.path)) as token:
        check_seen(token)


@contextlib.contextmanager
def _token(folder: Path) -> Iterator[Path]:
    """A hidden file, for as long as the block runs."""
    path = partial_path(folder.absolute() / "seen")
    path.touch()
    try:
        yield path
    finally:
        remove(path)


def check_seen(path: Path) -> None:
    """Wait until what the first process has made is seen; a UserError where it never is."""
    for _ in range(LOOKS):
        if os.path.lexists(path):
            return
        time.sleep(PAUSE)
    raise UserError(
        f"the run folder is not on a disk that all processes share: {path.parent} of process 0 is "
        "another place here; name a folder on a shared disk by --out"
    )


def check_rows(plan: BatchPlan, world: World) -> None:
    """Raise a UserError where no batch has a row for every device."""
    devices, most = world.mesh.devices, max(rows for rows, _, _ in plan.shapes)
    if most < devices:
        raise UserError(
            f"batches have at most {most} rows, and --mesh {world.mesh} is of {devices} devices, "
            "each of which computes rows of its own; raise --batch-tokens or take fewer devices"
        )


def about_devices(plan: BatchPlan, world: World) -> list[str]:
    """What the log says of processes and devices, where there are several."""
    devices, count = world.mesh.devices, world.processes.count
    if devices == count == 1:
        return []
    processes = f"{count} process{'es' if count > 1 else ''}"
    added = f"{plan.filling(devices):.1%} of the rows are padding that fills batches up"
    notes = [f"{processes}, mesh {world.mesh}: {added}"]
    least = min(rows for rows, _, _ in plan.shapes)
    if least < devices:
        notes.append(
            f"note: some batches have {least} rows for {devices} devices, of which the others "
            "compute padding; a larger --batch-tokens gives all of them work"
        )
    return notes
