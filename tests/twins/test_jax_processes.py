"""JAX's processes while they join each other."""

import ctypes
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from messages import says

pytest.importorskip("jax")

ROOT = Path(__file__).resolve().parents[2]
ENOUGH = 120  # seconds, where the machine is busy
TGKILL = 234  # the system call's number on x86-64


def free_port() -> int:
    with closing(socket.socket()) as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def listens(port: int) -> bool:
    with closing(socket.socket()) as place:
        return place.connect_ex(("127.0.0.1", port)) == 0


def tell_another_thread(process: subprocess.Popen[str], number: int) -> None:
    """A signal that the system gives to another thread than the main one, as it may any."""
    threads = sorted(map(int, os.listdir(f"/proc/{process.pid}/task")))
    tell = ctypes.CDLL(None, use_errno=True).syscall  # tgkill, which libraries may lack
    assert tell(TGKILL, process.pid, threads[-1], int(number)) == 0, ctypes.get_errno()


@pytest.mark.parametrize(
    ("number", "tell"),
    [
        pytest.param(signal.SIGTERM, subprocess.Popen.send_signal, id="SIGTERM"),
        pytest.param(signal.SIGINT, tell_another_thread, id="SIGINT to another thread"),
    ],
)
def test_a_signal_ends_a_process_that_waits_for_others(number, tell, place):
    if tell is tell_another_thread and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("a thread is named by its number on Linux, x86-64")
    port = free_port()
    command = [sys.executable, str(ROOT / "train.py"), "--backend", "jax", "--device", "cpu"]
    command += ["--coordinator-address", f"127.0.0.1:{port}", "--num-processes", "2"]
    command += ["--process-id", "0", "--data", "words.tsv", "--columns", "word,sound"]
    process = subprocess.Popen(
        command, cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        start_new_session=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        while process.poll() is None and not listens(port):
            time.sleep(0.05)
        tell(process, number)
        _, said = process.communicate(timeout=ENOUGH)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + number, said
    assert "stopped before training began; nothing was saved" in said
    assert not (place / "runs").exists()


def test_where_nothing_says_who_the_others_are(place):
    command = [sys.executable, str(ROOT / "train.py"), "--backend", "jax", "--device", "cpu"]
    command += ["--distributed", "jax", "--data", "words.tsv", "--columns", "word,sound"]
    done = subprocess.run(
        command, cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        capture_output=True, timeout=ENOUGH,
    )  # fmt: skip
    assert done.returncode == 2
    says(done.stderr, "no SLURM", "--coordinator-address HOST:PORT", "--num-processes N")
    assert not (place / "runs").exists()
