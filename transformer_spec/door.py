"""The door of every command: what it ends with, and the signals that ask it to end."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType

from transformer_spec.errors import UserError, printable, system_fault

# What a terminal that is closed sends; Windows has no such signal.
HANGUPS = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
ASKING = (signal.SIGINT, signal.SIGTERM, *HANGUPS)
STDERR = 2
SCRIPTS = ("train.py", "translate.py", "diversify.py", "twinformer", "twinformer.exe")
PACKAGES = ("convert", "parity", "twinformer")
# What is written aside at this moment, and how it is taken away: for an end that leaves no time.
UNFINISHED: dict[str, Callable[[], object]] = {}
OUT_OF_MEMORY = ("OutOfMemoryError", "RESOURCE_EXHAUSTED", "can't allocate memory", "bad_alloc")


def exit_status(command: Callable[[], int | None], when_interrupted: str) -> int:
    """Run a command; its status (None is 0), 2 for a user's mistake and 130 for Ctrl-C.

    Each is said on stderr in one message; what the system refuses (OSError) and memory that does
    not suffice count as mistakes. A reader that takes no more, as ``head`` does, ends the command
    with 1 and silently; every other exception goes through.
    """
    with ending_at_signals(when_interrupted):
        try:
            status = command() or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
        except BrokenPipeError:
            close_standard_output()
            return 1
        except KeyboardInterrupt:  # where another program calls a command
            say(when_interrupted)
            return 130
        except Exception as error:
            message = _mistake(error)
            if message is None:
                raise
            say(f"error: {message}")
            return 2


@contextlib.contextmanager
def ending_at_signals(message: str) -> Generator[None]:
    """A block in which Ctrl-C, SIGTERM and SIGHUP end a process that is a command, at once.

    One that was ignored before, as ``nohup`` has SIGHUP ignored, stays so. What is half-written is
    taken away and the message said. Nothing is raised: libraries swallow exceptions, and some die
    from them. The exit status is 128 + the signal's number. Ctrl-C while Python itself ends, after
    all that libraries do at the end, changes nothing any more.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        for each in ASKING:
            signal.signal(each, signal.SIG_IGN)
        for remove in [*UNFINISHED.values()] * 2:  # a thread may write meanwhile
            with contextlib.suppress(Exception):
                remove()
        with contextlib.suppress(OSError):
            os.write(STDERR, f"{message}\n".encode())
        os._exit(128 + number)

    if not is_command() or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ASKING}
    heard = [number for number in ASKING if before[number] not in (signal.SIG_IGN, None)]
    for number in heard:
        signal.signal(number, leave)
    if signal.SIGINT in heard:
        # Registered before the libraries', it is called after theirs. Python gives the signal back
        # to the system then, which would kill a command that is done.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def is_command() -> bool:
    """Whether this process is one of the commands, and not another program that calls one."""
    called = Path(sys.argv[0]) if sys.argv else Path()
    module = called.name == "__main__.py" and called.parent.name in PACKAGES
    return module or called.name in SCRIPTS


def say(message: str) -> None:
    """Say a message on stderr."""
    text = f"{printable(message)}\n"
    with contextlib.suppress(OSError):  # it may lie on the disk that is full
        print(text, end="", file=sys.stderr)


def _mistake(error: Exception) -> str | None:
    """What to say of an exception that is no fault of the program; None where it is one."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return system_fault(error)
    if isinstance(error, MemoryError):
        return f"memory does not suffice: {error or 'none is left'}"
    if isinstance(error, RuntimeError):
        text = f"{type(error).__name__}: {error}"
        if str(error).startswith("Symlink loop"):  # pathlib's, before Python 3.13
            return f"{error}: its symbolic links lead in a circle; name the place that is meant"
        if any(word in text for word in OUT_OF_MEMORY):
            return f"memory does not suffice: {str(error).splitlines()[0]}"
    return None


def is_unread(error: OSError) -> bool:
    """Whether standard output refused because who reads it is gone: a pipe's end, a terminal."""
    if isinstance(error, BrokenPipeError):
        return True
    closed = error.errno == errno.EIO  # of a file it is the disk's fault
    return closed and stat.S_ISCHR(os.fstat(sys.stdout.fileno()).st_mode)


def close_standard_output() -> None:
    """Drop what could not be written, which Python would try, and complain of, when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
