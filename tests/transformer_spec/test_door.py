"""The door of every command: what the system refuses is one line, faults of the program are not."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from messages import says
from translate_cases import ROOT

from transformer_spec import UserError
from transformer_spec.door import exit_status
from transformer_spec.errors import ADVICE, printable, printable_name, system_fault, text_fault


def raising(error: BaseException):
    def command() -> None:
        raise error

    return command


def refused(number: int, *names) -> OSError:
    return OSError(number, os.strerror(number), *names)


@pytest.mark.parametrize("number", [*ADVICE, errno.EBUSY])
def test_what_the_system_refuses_is_one_line_with_the_path_and_advice(
    number, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("runs")
    assert exit_status(raising(refused(number, "runs/x")), "stopped") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    says(said, "error", "runs/x", os.strerror(number), *filter(None, [ADVICE.get(number)]))


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), RuntimeError("x"), IndexError()])
def test_faults_of_the_program_go_through(error) -> None:
    with pytest.raises(type(error)):
        exit_status(raising(error), "stopped")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5 bytes.\nmore"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"),
    ],
)
def test_memory_that_does_not_suffice_is_one_line(error, capsys) -> None:
    assert exit_status(raising(error), "stopped") == 2
    says(capsys.readouterr().err, "error", "memory does not suffice")


def test_memory_of_numpy(capsys) -> None:
    assert exit_status(lambda: np.empty(1 << 60, np.int8) is None, "stopped") == 2
    says(capsys.readouterr().err, "error", "memory")


def test_an_error_shows_no_control_characters(capsys) -> None:
    assert exit_status(raising(UserError("a\x1b[2J\r\udcff\n  b")), "stopped") == 2
    assert capsys.readouterr().err == "error: a\\x1b[2J\\r\\udcff\n  b\n"


def test_long_paths_and_two_paths() -> None:
    long = "a" * 300
    assert long not in (said := system_fault(refused(errno.ENAMETOOLONG, long)))
    says(said, "a" * 100 + "..." + "a" * 100, "shorter name")
    says(system_fault(refused(errno.EACCES, "a", None, "b")), "a -> b")


def test_what_is_not_there_and_what_has_no_folder(tmp_path) -> None:
    """A folder that never was is no file that was moved."""
    said = system_fault(refused(errno.ENOENT, str(tmp_path / "none" / "x.txt")))
    says(said, str(tmp_path / "none" / "x.txt"), f"there is no folder {tmp_path / 'none'}")
    said = system_fault(refused(errno.ENOENT, os.fsencode(tmp_path / "x.txt")))
    assert "there is no folder" not in said
    for unsaid in (said, system_fault(OSError(errno.ENOENT, os.strerror(errno.ENOENT)))):
        says(unsaid, "it or its folder is not there", "moved or removed, or never made")


def test_texts_keep_their_lines_and_names_do_not() -> None:
    assert printable("a\tb\nc\x07é") == "a\tb\nc\\x07é"
    assert printable_name("a\tb\nc\x9b1m\u202e") == "a\\tb\\nc\\x9b1m\\u202e"


@pytest.mark.parametrize(("text", "part"), [("a\0b", "NUL"), ("a\ud800", "half")])
def test_texts_that_no_file_can_hold(text, part) -> None:
    assert part in (text_fault(text) or "")
    assert text_fault("ä\udcff") is None  # bytes that are no UTF-8 do name files


CODE = """
import sys, time, os, signal, pathlib
sys.argv[0] = {called!r}
from transformer_spec.door import UNFINISHED, exit_status
from training_recipe.files.writing import folder_aside
def command():
    with folder_aside(pathlib.Path("made")) as aside:
        (aside / "half").write_text("x")
        try:
            os.kill(os.getpid(), signal.{name})
            time.sleep(20)
        except BaseException:
            if {called!r} == "train.py":
                print("raised", flush=True)
            raise
sys.exit(exit_status(command, "stopped"))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are a POSIX matter")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_end_a_command_with_one_line_and_leave_nothing(tmp_path, name) -> None:
    done = python(CODE.format(called="train.py", name=name), tmp_path)
    assert done.returncode == 128 + getattr(signal, name)
    assert (done.stdout, done.stderr) == ("", "stopped\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="signals are a POSIX matter")
def test_what_was_ignored_before_ends_no_command(tmp_path) -> None:
    """As nohup has it."""
    code = CODE.replace("sys.argv[0]", "signal.signal(signal.SIGHUP, signal.SIG_IGN); sys.argv[0]")
    code = code.replace("time.sleep(20)", "print('went on')")
    done = python(code.format(called="train.py", name="SIGHUP"), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


ENDING = """
import atexit, os, signal, sys, time
sys.argv[0] = "train.py"
signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
from transformer_spec.door import exit_status
class Late:
    def __init__(self, kill=os.kill, number=os.getpid(), asked=signal.SIGINT):
        self.ask = lambda: kill(number, asked)
    def __del__(self):
        self.ask()
def command():
    print("done")
    if {when!r} == "at exit":
        atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(20)))
    return 1
late = Late() if {when!r} == "torn down" else None
sys.exit(exit_status(command, "stopped"))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are a POSIX matter")
@pytest.mark.parametrize(("when", "status"), [("at exit", 130), ("torn down", 1)])
def test_ctrl_c_after_all_is_done(tmp_path, when, status) -> None:
    """What libraries do at the end may be ended; Python's own end, where none of its code can
    answer, is waited for: the command is done, and is not killed by the signal."""
    done = python(ENDING.format(when=when), tmp_path)
    assert (done.returncode, done.stderr) == (status, "")
    assert status == 130 or done.stdout == "done\n"


def test_another_program_that_calls_a_command_hears_ctrl_c_itself(tmp_path) -> None:
    done = python(CODE.format(called="mine.py", name="SIGINT"), tmp_path)
    assert (done.returncode, done.stderr) == (130, "stopped\n")
    assert list(tmp_path.iterdir()) == []


def python(code: str, folder) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="signals are a POSIX matter")
@pytest.mark.parametrize(
    "words",
    [["train.py"], ["translate.py"], ["diversify.py"], ["-m", "twinformer", "train"]]
    + [["-m", "convert"], ["-m", "parity"]],
)
def test_ctrl_c_while_a_command_is_imported_is_no_traceback(tmp_path, words) -> None:
    """NumPy, which all import, sends the signal from inside its own import."""
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(
        "import os, signal, time\ntry:\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
        "except BaseException:\n    pass\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    words = [str(ROOT / words[0])] if words[0].endswith(".py") else words
    done = subprocess.run(
        [sys.executable, *words], env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
