"""Errors that a user's mistake causes: one clear message, never a traceback."""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

MOST_OF_A_KIND, SHOWN_OF_A_KIND = 6, 3
LONGEST_PATH = 200
# What a terminal would obey instead of showing it, and what no text can hold; in a name also what
# would begin another line or column.
CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
IN_TEXTS = re.compile(f"[{CONTROLS}]")
IN_NAMES = re.compile(f"[{CONTROLS}\t\n\u2028\u2029]")
MOVED = "was it moved or removed, or never made?"
ABSENT = f"it or its folder is not there; {MOVED}"
ROOM = "make room, or name a place on another disk"
RIGHTS = "this user may not; change the permissions or name another place"
ADVICE = {
    errno.EROFS: "this disk can only be read; name a place on another",
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "the disk or the user's limit (ulimit -f) allows no file of that size",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.ENOENT: ABSENT,
    errno.ESTALE: ABSENT,
    errno.ENOTDIR: "a part of the path is a file; name a place in a folder",
    errno.EISDIR: "it is a folder; name a file",
    errno.ELOOP: "its symbolic links lead in a circle; name the place that is meant",
    errno.EMFILE: "close other files, or allow more (ulimit -n)",
    errno.EIO: "the disk does not answer as it should; try another",
}


class UserError(ValueError):
    """A user's mistake; the message says what was given, what is allowed and what to do.

    ``faults`` lists what is wrong, an entry for each mistake; the message holds them all, of many
    of a kind the first ones and their number.
    """

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = list(faults) or [message]


class ConfigError(UserError):
    """A model config that cannot describe a Transformer, with all its faults in one message."""


class Faults:
    """Collects faults so that all of them are reported at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.kinds: list[str] = []

    def add(self, message: str, kind: str = "") -> None:
        """One more fault; of many of a ``kind`` ("are missing") the first are shown and counted."""
        self.messages.append(message)
        self.kinds.append(kind)

    def take(self, error: UserError) -> None:
        """The faults of an error, an entry each."""
        for fault in error.faults:
            self.add(fault)

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            self.add(message)

    def raise_if_any(
        self, heading: str, error: type[UserError] = UserError, advice: str = ""
    ) -> None:
        """Raise one ``error`` that lists every fault, then ``advice``; nothing where none is."""
        if not self.messages:
            return
        count = f" {len(self.messages)} faults\n  " if len(self.messages) > 1 else " "
        end = f"\n{advice}" if advice else ""
        raise error(f"{heading}:{count}" + "\n  ".join(self._lines()) + end, self.messages)

    def _lines(self) -> list[str]:
        """The messages, those of a kind together where there are too many to be read."""
        by_kind: dict[str, list[str]] = {}
        for number, (message, kind) in enumerate(zip(self.messages, self.kinds, strict=True)):
            by_kind.setdefault(kind or f"{number}", []).append(message)
        lines: list[str] = []
        for kind, messages in by_kind.items():
            lines += first_of(messages, kind)
        return lines


def first_of(messages: Sequence[str], kind: str) -> list[str]:
    """Messages of one kind; of too many to be read the first ones and a line with the number."""
    if len(messages) <= MOST_OF_A_KIND:
        return list(messages)
    more = f"and {len(messages) - SHOWN_OF_A_KIND:,} more {kind}"
    return [*messages[:SHOWN_OF_A_KIND], more]


def closest(given: str, allowed: Iterable[str]) -> str:
    """``; did you mean X?`` for the nearest allowed name, or nothing.

    Dashes at the front bring nothing nearer.
    """
    names = {name.lstrip("-"): name for name in allowed}
    near = difflib.get_close_matches(given.lstrip("-"), names, n=1, cutoff=0.65)
    return f"; did you mean {names[near[0]]}?" if near else ""


def printable(text: str) -> str:
    """A text of several lines with its other control characters escaped, as in ``\\x1b``."""
    return IN_TEXTS.sub(_escaped, text)


def printable_name(name: object) -> str:
    """A name that a file gave, on one line, with its control characters escaped."""
    return IN_NAMES.sub(_escaped, str(name))


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()


@contextlib.contextmanager
def refusals_told() -> Generator[None]:
    """A block, or as a decorator a function, in which what the system refuses is a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(system_fault(error)) from error


def system_fault(error: OSError) -> str:
    """What the system refused, in one line: the path, the reason and what to do."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = " -> ".join(map(_shown_path, names))
    reason = error.strerror or str(error) or type(error).__name__
    advice = _no_folder(names) if error.errno == errno.ENOENT else None
    advice = advice or ADVICE.get(error.errno or 0)
    told = f"{reason}; {advice}" if advice else reason
    return f"{where}: {told}" if where else told


def broken_link(path: Path) -> str | None:
    """That a path is a link to what is not there, and what to do; None where it is no such link."""
    if not path.is_symlink() or path.exists():
        return None
    return (
        f"{path} is a link to {printable_name(os.readlink(path))}, which is not there: copy what "
        "links lead to (cp -L), or get the file again"
    )


def _no_folder(paths: Iterable[str | bytes]) -> str | None:
    """That the folder in which one of these paths would lie is not there, where it is so."""
    folders = (os.path.dirname(os.fsdecode(path)) for path in paths)
    for folder in folders:
        if folder and not os.path.isdir(folder):
            return f"there is no folder {_shown_path(folder)}; {MOVED}"
    return None


def _shown_path(path: str | bytes) -> str:
    """A path for a message, its middle left out where it is very long."""
    text = printable_name(os.fsdecode(path))
    half = LONGEST_PATH // 2
    return text if len(text) <= LONGEST_PATH else f"{text[:half]}...{text[-half:]}"


def text_fault(text: str) -> str | None:
    """Why a text is no name of a file and no text of a file, or None."""
    if "\0" in text:
        return "it holds the character NUL, which no name can hold"
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        return f"it holds {text[error.start]!r}, which is half of a character"
    return None
