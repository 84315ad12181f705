"""Where outputs of texts go: standard output, or a file that has its name when it is whole."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from training_recipe.files.abandoned import held
from training_recipe.files.writing import check_parent, sync
from transformer_spec.door import STDERR, UNFINISHED, close_standard_output, say
from transformer_spec.errors import Faults, UserError, printable, system_fault

UNFINISHED_SUFFIX = ".unfinished"
# What programs have open is listed there: a name in it is of a file that is open already.
OPEN_FILES = ("/proc/", "/dev/fd/")


class Output:
    """Takes the outputs of ``texts`` texts, some at a time."""

    def __init__(self, path: Path | None, stream: TextIO, texts: int) -> None:
        self.path, self.stream, self.texts = path, stream, texts
        self.done, self.size = 0, 0

    def add(self, lines: list[str], texts: int) -> None:
        """Write the lines of the next texts; they are with the system when this returns."""
        content = "".join(lines)
        with saying_where(self.path):
            self.stream.write(content)
            self.stream.flush()
        self.done += texts
        self.size += len(content.encode())


@contextlib.contextmanager
def opened(path: Path | None, texts: int) -> Iterator[Output]:
    """The output file or standard output, in UTF-8 whatever the system's language.

    A file is FILE.unfinished until the block ends well; what was FILE before stays until then. Of
    one that ends otherwise, by a signal too, that holds what was done, and is told. What is no file
    on a disk, as a pipe, is written to as it is.
    """
    with saying_where(path):
        if path is None:
            sys.stdout.reconfigure(encoding="utf-8")  # pyright: ignore[reportAttributeAccessIssue]
            yield Output(None, sys.stdout, texts)
        elif is_written_in_place(path):
            with path.open("w", encoding="utf-8", newline="\n") as stream:
                yield Output(path, stream, texts)
        else:
            with _until_whole(path, texts) as output:
                yield output


@contextlib.contextmanager
def _until_whole(path: Path, texts: int) -> Iterator[Output]:
    place, aside = Path(os.path.realpath(path)), unfinished(path)
    _keep_earlier(aside, path)
    aside.touch()
    with _alone(aside, path), contextlib.ExitStack() as ending:
        with aside.open("w", encoding="utf-8", newline="\n") as stream:
            output = Output(path, stream, texts)
            part = _Part(output, aside)
            ending.push(part.end)
            UNFINISHED[str(aside)] = part.keep
            yield output
        sync(aside)
        if place.exists():
            with contextlib.suppress(PermissionError):  # the part file is another user's
                aside.chmod(place.stat().st_mode & 0o777)
        os.replace(aside, place)
        sync(place.parent)


def _keep_earlier(aside: Path, path: Path) -> None:
    """Give what an interrupted run has left there another name: it may have taken hours."""
    if not aside.exists() or not aside.stat().st_size:
        return
    with _alone(aside, path):
        names = (aside.with_name(f"{aside.name}-{number}") for number in itertools.count(1))
        kept = next(name for name in names if not os.path.lexists(name))
        os.rename(aside, kept)
    say(f"{aside}, which an interrupted run left, is {kept} now")


@contextlib.contextmanager
def _alone(aside: Path, path: Path) -> Iterator[None]:
    """A block in which no other process writes the same file."""
    with contextlib.ExitStack() as stack:
        try:
            held_by = stack.enter_context(held(aside))
            if held_by is not None and not os.path.samestat(os.fstat(held_by), aside.stat()):
                raise BlockingIOError  # it has just got its name, and is another's new one
        except (BlockingIOError, FileNotFoundError):
            raise UserError(f"--output {path}: another process is writing {aside}") from None
        yield


class _Part:
    """What is written of a file that does not become whole."""

    def __init__(self, output: Output, aside: Path) -> None:
        self.output, self.aside, self.told = output, aside, False

    def end(self, kind: type[BaseException] | None, *_: object) -> None:
        """The end of the block that writes: by an exception of that kind, or well."""
        UNFINISHED.pop(str(self.aside), None)
        if kind is not None:
            self.keep()

    def keep(self) -> None:
        """Keep the lines of whole texts and say where; nothing where no text is done."""
        if self.told or not self.aside.exists():
            return
        self.told, output = True, self.output
        if not output.size:
            self.aside.unlink(missing_ok=True)
            return
        with contextlib.suppress(OSError):
            os.truncate(self.aside, output.size)
        before = "is as it was" if os.path.lexists(output.path or "") else "is not there"
        done = f"{output.done:,} of {output.texts:,} texts are done and kept in {self.aside}"
        _tell(f"{done}; {output.path} {before}")


def _tell(message: str) -> None:
    """Say a message, inside a signal's handler too, where stderr may be in use."""
    try:
        say(message)
    except RuntimeError:
        os.write(STDERR, f"{printable(message)}\n".encode())


def unfinished(path: Path) -> Path:
    """What an output file is called until it is whole."""
    place = Path(os.path.realpath(path))
    return place.with_name(place.name + UNFINISHED_SUFFIX)


def is_written_in_place(path: Path) -> bool:
    """Whether a path is of no file on a disk, of one that is open already, as /dev/stdout, or of
    one that no other can take the place of: mounted by itself, or in a folder that is not ours.
    """
    if not path.exists():
        return False
    if not path.is_file() or any(place.startswith(OPEN_FILES) for place in _links(path)):
        return True
    place = os.path.realpath(path)
    return os.path.ismount(place) or not os.access(os.path.dirname(place), os.W_OK)


def _links(path: Path) -> Iterator[str]:
    """A path, and where its last part is a link, what that names, and so on."""
    place = os.fspath(path)
    while True:
        place = os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
        yield place
        if not os.path.islink(place):
            return
        place = os.path.join(os.path.dirname(place), os.readlink(place))


def check_output(path: Path, source: str | None, faults: Faults) -> None:
    """Add a fault where an output file could not be written, before anything is computed.

    So it is where the file of the ``source`` would be overwritten.
    """
    if path.is_dir():
        faults.add(f"--output {path} is a folder; name a file in it")
    elif source and any(_is_file(place, source) for place in (path, unfinished(path))):
        faults.add(f"--output {path}: {source} is the input and would be overwritten")
    elif os.path.islink(os.path.realpath(path)):
        faults.add(f"--output {path}: its symbolic links lead in a circle")
    elif not (parent := Path(os.path.realpath(path)).parent).exists():
        named = parent if path.is_symlink() else path.parent
        faults.add(f"--output is {path}; there is no folder {named}")
    elif not is_written_in_place(path):
        _check_file(path, faults)


def _is_file(place: Path, source: str) -> bool:
    return place.exists() and os.path.exists(source) and place.samefile(source)


def _check_file(path: Path, faults: Faults) -> None:
    if path.exists() and not os.access(path, os.W_OK):
        refused = OSError(errno.EACCES, os.strerror(errno.EACCES))
        faults.add(f"cannot write --output {path}: {system_fault(refused)}")
        return
    try:
        check_parent(unfinished(path))
    except UserError as error:
        faults.take(error)


@contextlib.contextmanager
def saying_where(path: Path | None) -> Iterator[None]:
    """A block whose OSErrors are of the output file or of standard output."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if path is None:
            close_standard_output()
        where = "to standard output" if path is None else f"--output {path}"
        reason = OSError(error.errno, error.strerror) if error.strerror else error
        raise UserError(f"cannot write {where}: {system_fault(reason)}") from None
