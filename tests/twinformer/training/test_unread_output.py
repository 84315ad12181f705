"""What a run says and nobody reads, or no encoding has: training is saved all the same."""

import io
import os
import signal
import sys

import pytest
from training_cases import SMALL, assert_same_run, launch_code, run

from training_recipe.runs.folder import RunFolder
from twinformer.training.display import Display

# Both outputs go into a pipe, as in ``2>&1 | tee log``, whose reader goes away after a step.
PIPED = """
import os, signal
from training_cases import run

reader, writer = os.pipe()
for output in (1, 2):
    os.dup2(writer, output)
os.close(writer)

def after_step(step):
    if step == {step}:
        os.close(reader)
        if {asked}:
            os.kill(os.getpid(), signal.SIGINT)

os._exit(run("numpy", {arguments}, after_step))
"""


def piped(place, step: int, asked: bool) -> int:
    """The exit status of a run whose reader goes away, by Ctrl-C or by itself."""
    arguments = [*SMALL, "--name", "a"]
    code = PIPED.format(step=step, asked=asked, arguments=arguments)
    return launch_code(code, place).returncode


@pytest.mark.parametrize("step", [8, 9])
def test_ctrl_c_that_ends_the_reader_too(step, place, whole, quick) -> None:
    """After a step that logs nothing, and after one that logs."""
    assert piped(place, step, asked=True) == 130
    assert RunFolder(place / "runs/a").steps()[-1] == step
    assert run("numpy", ["--resume", "runs/a"]) == 0
    assert_same_run(place / "runs/a", whole("numpy"))


def test_a_reader_that_takes_no_more_ends_the_run_saved(place, whole, quick) -> None:
    """It is noticed at the next log line, that of step 9."""
    assert piped(place, 7, asked=False) == 1
    assert RunFolder(place / "runs/a").steps()[-1] == 9
    assert run("numpy", ["--resume", "runs/a"]) == 0
    assert_same_run(place / "runs/a", whole("numpy"))


# On a terminal of its own, which closes after a step; the shell says so too, while the run saves.
ON_A_TERMINAL = """
import os, pty, select, signal, time
from training_cases import run

asked, (ready, note) = [], os.pipe()
process, terminal = pty.fork()

def after_step(step):
    if step == {step}:
        os.write(note, b"x")
        time.sleep(1)
        asked.append(step)

def in_save(folder):
    if asked:
        os.kill(os.getpid(), signal.SIGHUP)

if process == 0:
    signal.signal(signal.SIGHUP, signal.{before})
    os._exit(run("numpy", {arguments}, after_step, in_save))
while ready not in (heard := select.select([ready, terminal], [], [])[0]):
    os.read(terminal, 4096)
os.close(terminal)
os._exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are a POSIX matter")
@pytest.mark.parametrize("step", [8, 9])
def test_a_terminal_that_closes(step, place, whole, quick) -> None:
    """After a step that logs nothing, and after one that logs."""
    arguments = [*SMALL, "--name", "a"]
    code = ON_A_TERMINAL.format(step=step, before="SIG_DFL", arguments=arguments)
    assert launch_code(code, place).returncode == 128 + signal.SIGHUP
    assert RunFolder(place / "runs/a").steps()[-1] == step
    assert run("numpy", ["--resume", "runs/a"]) == 0
    assert_same_run(place / "runs/a", whole("numpy"))


NOHUP = """
import signal, sys
from training_cases import run, signal_after

signal.signal(signal.SIGHUP, signal.SIG_IGN)
asked = lambda step: [signal_after(4, signal.{first})(step), signal_after(5, signal.SIGHUP)(step)]
sys.exit(run("numpy", {arguments}, asked))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are a POSIX matter")
@pytest.mark.parametrize(("first", "status", "step"), [("SIGHUP", 0, 12), ("SIGTERM", 143, 4)])
def test_nohup(first, status, step, place, quick) -> None:
    code = NOHUP.format(first=first, arguments=[*SMALL, "--name", "a"])
    done = launch_code(code, place)
    assert (done.returncode, RunFolder(place / "runs/a").steps()[-1]) == (status, step)


def test_what_the_encoding_lacks(monkeypatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    Display(3, 0, bar=False).line("Fu\u00df \uac00 \U0001f600")
    stream.flush()
    assert stream.buffer.getvalue().decode("cp1252").strip() == "Fu\u00df \\uac00 \\U0001f600"


def test_commands_to_copy_are_quoted(place, quick, capsys) -> None:
    assert run("numpy", [*SMALL, "--name", "my run"]) == 0
    said = capsys.readouterr().out
    assert "translate 'runs/my run' " in said
    assert run("numpy", ["--resume", "runs/my run", "--steps", "3"]) == 2
