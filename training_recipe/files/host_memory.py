"""A value that one process of a host makes, and all of them hold once: its arrays in a mapped file.

The file lies in the host's folder for temporary files. Whoever comes first locks it and fills it,
the others wait for the lock; the system frees that where a process dies, so that another one fills
the file. All who use the file hold a shared lock on it, and one that nobody holds is removed.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import struct
import tempfile
import weakref
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from training_recipe.files.writing import remove
from transformer_spec.door import UNFINISHED
from transformer_spec.errors import system_fault

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

T = TypeVar("T")
PREFIX = "twinformer-shared-"
HEADER = struct.Struct("<8sQQ")  # that the file is whole, and where its index begins and ends
WHOLE = b"TWINHOST"
ALIGNED = 64


def made_once(name: str, make: Callable[[], T]) -> tuple[T, str | None]:
    """What ``make`` gives in the first process of a host that comes here with this name.

    ``name`` is one that no other run has. The value is one that pickle takes; its NumPy arrays lie
    in the file and cannot be written to. Where no file can be shared, as on a full disk, each
    process makes and holds its own value, and a note says so.
    """
    if fcntl is None:
        return make(), "note: on this system every process holds the token ids itself"
    path = Path(tempfile.gettempdir()) / f"{PREFIX}{name}"
    try:
        _remove_abandoned(path)
        file = _locked(path)
    except OSError as error:
        return make(), _not_shared(error)
    with file:
        if not _is_whole(file):
            value = _made(path, make)
            try:
                _write(file, value)
            except OSError as error:
                file.truncate(0)
                remove(path)
                return value, _not_shared(error)
            del value
        fcntl.flock(file, fcntl.LOCK_SH)
        return _mapped(file, path), None


def _not_shared(error: OSError) -> str:
    folder = tempfile.gettempdir()
    return (
        f"note: the token ids cannot lie in a file of {folder} for all processes of this host "
        f"({system_fault(error)}); each holds them itself. TMPDIR names another folder"
    )


def _made(path: Path, make: Callable[[], T]) -> T:
    UNFINISHED[str(path)] = lambda: remove(path)
    try:
        return make()
    except BaseException:
        _remove_name(path)
        raise


def _remove_name(path: Path) -> None:
    """Remove the file's name; those who hold the file keep it."""
    remove(path)
    UNFINISHED.pop(str(path), None)


def _open(path: Path, *flags: int) -> FileIO:
    """A file that only this user can read; another user's is a PermissionError."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | sum(flags), 0o600)
    file = FileIO(descriptor, "r+")
    if os.fstat(descriptor).st_uid != os.geteuid():
        file.close()
        raise PermissionError(f"{path} belongs to another user")
    return file


def _locked(path: Path) -> FileIO:
    """The file of that name: whole, or for this process alone to fill."""
    while True:
        file = _open(path, os.O_CREAT)
        try:
            if _is_ready(file) and _is_named(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _is_ready(file: FileIO) -> bool:
    """Lock a file, for this process alone or, once another has filled it, with the others.

    It is not ready where another process has died over it.
    """
    assert fcntl is not None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        fcntl.flock(file, fcntl.LOCK_SH)
        return _is_whole(file)


def _is_named(file: FileIO, path: Path) -> bool:
    """Whether a file has its name yet, which may have been removed meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


def _remove_abandoned(besides: Path) -> None:
    """Remove the files of processes that were killed: those that nobody holds."""
    assert fcntl is not None
    for path in besides.parent.glob(f"{PREFIX}*"):
        if path == besides:
            continue
        with contextlib.suppress(OSError), _open(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_named(file, path):
                path.unlink()


def _is_whole(file: FileIO) -> bool:
    header = os.pread(file.fileno(), HEADER.size, 0)
    if len(header) < HEADER.size:
        return False
    mark, _, end = HEADER.unpack(header)
    return mark == WHOLE and end == os.fstat(file.fileno()).st_size


def _write(file: FileIO, value: Any) -> None:
    """The arrays, what pickle makes of the rest, and at last the header."""
    arrays: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(value, 5, buffer_callback=arrays.append)
    file.truncate(0)
    end, spans = HEADER.size, []
    for array in arrays:
        begin = -(-end // ALIGNED) * ALIGNED
        end = begin + _write_at(file, begin, array.raw())
        spans.append((begin, end))
    size = _write_at(file, end, memoryview(pickle.dumps((spans, rest))))
    _write_at(file, 0, memoryview(HEADER.pack(WHOLE, end, end + size)))


def _write_at(file: FileIO, place: int, content: memoryview) -> int:
    file.seek(place)
    left = content
    while len(left):
        left = left[file.write(left) :]
    return len(content)


def _mapped(file: FileIO, path: Path) -> Any:
    """The value, whose arrays hold the mapping, which holds the lock.

    The mapping has the file's descriptor once more, so that the file can be closed. The name goes
    with it, at the latest when the process ends.
    """
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    UNFINISHED[str(path)] = lambda: remove(path)
    weakref.finalize(mapped, _remove_name, path)
    view = memoryview(mapped)
    _, begin, end = HEADER.unpack(view[: HEADER.size])
    spans, rest = pickle.loads(view[begin:end])
    return pickle.loads(rest, buffers=[view[slice(*span)] for span in spans])
