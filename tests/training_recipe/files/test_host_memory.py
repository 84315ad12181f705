"""One value for all processes of a host: made once, mapped by all, gone afterwards."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fcntl", reason="locks of files, which Windows has not")

from training_recipe.files.host_memory import PREFIX, made_once

PROGRAM = """
import resource, sys, time
from pathlib import Path
import numpy as np
from training_recipe.files.host_memory import made_once

calls, action = Path(sys.argv[1]), sys.argv[2]
if action == "limited":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, 1 << 12))

def make():
    with calls.open("a") as file:
        file.write("made\\n")
    time.sleep(60 if action == "dies" else 0.5)
    return {"ids": np.arange(100_000), "name": "long"}

value, note = made_once("test", make)
assert (value["ids"] == np.arange(100_000)).all() and value["name"] == "long"
print(note or "shared", flush=True)
if action == "waits":
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch) -> Path:
    """The folder of temporary files, in this process and in those that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def started(calls: Path, action: str = "ends") -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PROGRAM, str(calls), action]
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)


def said(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return out.strip()


def until_made(calls: Path) -> None:
    end = time.monotonic() + 30
    while not calls.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert calls.exists()


def test_it_is_made_once_and_removed_at_the_end(tmp_path: Path, temporary: Path) -> None:
    processes = [started(tmp_path / "calls", "waits") for _ in range(3)]
    assert processes[0].stdout is not None
    assert processes[0].stdout.readline() == "shared\n"
    assert [said(process) for process in processes[1:]] == ["shared", "shared"]
    said(processes[0])
    assert (tmp_path / "calls").read_text() == "made\n"
    assert not list(temporary.iterdir())


def test_another_makes_it_where_the_first_is_killed(tmp_path: Path, temporary: Path) -> None:
    first = started(tmp_path / "calls", "dies")
    until_made(tmp_path / "calls")
    second = started(tmp_path / "calls")
    time.sleep(0.5)
    first.kill()
    first.communicate()
    assert said(second) == "shared"
    assert (tmp_path / "calls").read_text() == "made\nmade\n"
    assert not list(temporary.iterdir())


def test_each_holds_its_own_on_a_full_disk(tmp_path: Path, temporary: Path) -> None:
    processes = [started(tmp_path / "calls", "limited") for _ in range(2)]
    for process in processes:
        note = said(process)
        assert note.startswith(f"note: the token ids cannot lie in a file of {temporary}")
        assert "File too large" in note and "TMPDIR" in note
    assert not list(temporary.iterdir())


def test_what_killed_processes_left_is_removed(tmp_path: Path, temporary: Path) -> None:
    """And what others hold is not."""
    left, other = temporary / f"{PREFIX}left", temporary / "other"
    left.write_bytes(b"ids")
    other.write_bytes(b"ids")
    held = started(tmp_path / "calls", "waits")
    assert held.stdout is not None and held.stdout.readline() == "shared\n"
    value, note = made_once("mine", lambda: np.arange(3))
    assert (value.tolist(), note) == ([0, 1, 2], None)
    assert {path.name for path in temporary.iterdir()} == {
        "other",
        f"{PREFIX}test",
        f"{PREFIX}mine",
    }
    said(held)


def test_arrays_are_read_only_and_hold_the_file(temporary: Path) -> None:
    path = temporary / f"{PREFIX}mine"
    value, _ = made_once("mine", lambda: [np.arange(5), np.zeros((0, 2)), "text"])
    again, _ = made_once("mine", pytest.fail)
    assert path.stat().st_mode & 0o777 == 0o600
    for arrays in (value, again):
        assert arrays[0].tolist() == [0, 1, 2, 3, 4] and arrays[1].shape == (0, 2)
        assert arrays[2] == "text" and not arrays[0].flags.writeable
    del value, again, arrays
    assert not path.exists()


def test_an_error_of_the_maker_leaves_nothing(temporary: Path) -> None:
    def fail() -> None:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        made_once("mine", fail)
    assert not list(temporary.iterdir())
    assert made_once("mine", lambda: np.ones(1))[0].tolist() == [1]


def test_a_link_of_that_name_is_not_followed(tmp_path: Path, temporary: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    os.symlink(elsewhere, temporary / f"{PREFIX}mine")
    value, note = made_once("mine", lambda: np.ones(1))
    assert value.tolist() == [1] and "cannot lie in a file" in (note or "")
    assert elsewhere.read_text() == "precious"


def test_a_damaged_file_is_made_again(temporary: Path) -> None:
    path = temporary / f"{PREFIX}mine"
    path.write_bytes(b"TWINHOST" + bytes(16) + b"cut short")
    assert made_once("mine", lambda: np.ones(2))[0].tolist() == [1, 1]
