"""Joining the processes of torchrun, and what is said where that is not possible."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
import torch.distributed as dist
from messages import saying
from torch_mesh_cases import environment, free_port

from torch_transformer import processes
from torch_transformer.processes import (
    Place,
    find_place,
    join,
    wait_for_address,
    wait_for_all,
)
from training_recipe.distributed.joining import TORCHRUN, Joining
from training_recipe.distributed.mesh import REST, Mesh
from training_recipe.options.joining import DeviceOptions, joining_of
from transformer_spec import UserError

STARTED = environment(1, 4, 29500)


@pytest.fixture
def started(monkeypatch):
    """A function: this process as torchrun would have started it."""

    def start(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    return start


def test_a_process_that_torchrun_did_not_start_is_alone(started) -> None:
    for mode in ("auto", "off"):
        for mesh in (None, Mesh(), Mesh(data=-1)):
            world = join(Joining(mode, "cpu", mesh))
            assert (world.processes.count, world.mesh) == (1, Mesh(1, 1))
    started(**environment(0, 1, 29500))
    assert join(Joining("torchrun", "cpu")).processes.count == 1


def test_off_stays_alone_under_torchrun(started) -> None:
    started(**STARTED)
    assert join(Joining("off", "cpu")).processes.count == 1


def test_what_torchrun_says_is_read() -> None:
    for mode in ("auto", "torchrun"):
        place = find_place(mode, STARTED)
        assert place is not None
        assert (place.rank, place.count, place.local_rank) == (1, 4, 1)
        assert place.address == "127.0.0.1:29500"
    assert find_place("auto", {"LOCAL_RANK": "0"}) is None


@pytest.mark.parametrize(
    ("mode", "environment", "said"),
    [
        ("torchrun", {}, "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
        ("auto", STARTED | {"MASTER_PORT": ""}, "lacks MASTER_PORT, which torchrun sets"),
        ("torchrun", STARTED | {"RANK": "first"}, "RANK=first"),
        ("jax", STARTED, "--distributed torchrun.*--nproc-per-node 5"),
    ],
)
def test_one_clear_error_where_it_cannot_join(mode, environment, said) -> None:
    with pytest.raises(UserError, match=said):
        find_place(mode, environment, Mesh(data=5))


def test_a_coordinator_is_named_as_it_was_given() -> None:
    joining = joining_of(DeviceOptions(coordinator_address="foo:1", num_processes=2), "cpu")
    with pytest.raises(UserError, match="^--coordinator-address is of the jax backend"):
        join(joining)
    with pytest.raises(UserError, match="^--distributed jax is of the jax backend"):
        join(joining_of(DeviceOptions(distributed="jax"), "cpu"))


def test_a_mesh_of_several_devices_needs_several_processes(started) -> None:
    with pytest.raises(UserError, match="(?s)2 devices, and there is 1.*torchrun"):
        join(Joining("auto", "cpu", Mesh(data=2)))
    for mesh, said in (
        (Mesh(data=8), ("8 devices", "--nproc-per-node 8,")),
        (Mesh(data=2, fsdp=3), ("6 devices", "--nproc-per-node 6,")),
        (Mesh(data=REST, fsdp=4), ("a multiple of 4 devices", "--nproc-per-node N,")),
    ):
        with pytest.raises(UserError, check=saying(*said)):
            join(Joining("auto", "cpu", mesh))


def test_a_mesh_of_another_number_of_devices(started) -> None:
    started(**STARTED)
    with pytest.raises(UserError, match="--mesh data=3 is of 3 devices, and there are 4"):
        join(Joining("auto", "cpu", Mesh(data=3)))


def test_a_gpu_for_each_process(monkeypatch) -> None:
    monkeypatch.setattr(processes, "find_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="process 2 of this machine has no GPU.*sees 2"):
        processes.own_device("gpu", 2)


def test_processes_that_do_not_come_are_counted(started) -> None:
    started(**environment(0, 3, free_port()))
    begin = time.monotonic()
    with pytest.raises(UserError, match="1 of 3 processes came .* missing: 1, 2; look"):
        join(Joining("auto", "cpu", timeout=1))
    assert time.monotonic() - begin < 20


def test_nobody_at_the_address(started) -> None:
    port = free_port()
    started(**environment(1, 2, port))
    with pytest.raises(UserError, match=f"1 of 2 could not join the others at 127.0.0.1:{port}"):
        join(Joining("auto", "cpu", timeout=1))


def test_who_has_come_is_waited_for_as_long_as_it_takes(started) -> None:
    """The first process may read and encode for longer than joining may take."""
    where, most = environment(0, 1, free_port()), timedelta(seconds=20)
    started(**where)
    place = find_place("torchrun", where)
    assert place is not None
    processes.meet(place, torch.device("cpu"), most)
    joined = processes.TorchProcesses()
    try:
        assert waits(joined.host) > timedelta(days=1)
        assert waits(dist.group.WORLD) > most
    finally:
        joined.leave()


def waits(group) -> timedelta:
    """How long a process waits for the others of a group."""
    return group._get_backend(torch.device("cpu")).options._timeout


TWO = """
from torch_transformer.processes import join
from training_recipe.distributed.joining import Joining
world = join(Joining(timeout=60))
given = world.processes.gather(world.processes.index)
print(f"{given} {world.mesh}\\n", end="", flush=True)
world.processes.leave()
"""


@pytest.mark.thorough
def test_under_torchrun(tmp_path) -> None:
    script = tmp_path / "two.py"
    script.write_text(TWO)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launch, str(script)]
    here = os.environ | {"PYTHONPATH": str(Path(processes.__file__).parents[1])}
    done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[0, 1] data=2,fsdp=1"] * 2


def test_a_signal_ends_the_waiting_for_others() -> None:
    """The first of two processes waits for one that never comes, says so, and hears Ctrl-C."""
    place = Place(0, 2, 0, "127.0.0.1", free_port())
    store = dist.HashStore()
    store.set("here/0", "1")

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            wait_for_all(store, place, timedelta(seconds=60))
        assert time.monotonic() - begun < 10
    finally:
        signal.signal(signal.SIGALRM, before)


def test_nobody_listens(capsys, monkeypatch) -> None:
    monkeypatch.setattr(processes, "LONG", 0.0)
    place = Place(1, 2, 0, "127.0.0.1", free_port())
    with pytest.raises(UserError, match="process 1 of 2 could not join .* nobody listened there"):
        wait_for_address(place, timedelta(seconds=0.3))
    said = capsys.readouterr().err
    assert said.startswith(f"nobody listens at {place.address} yet; waiting up to 0 seconds")
