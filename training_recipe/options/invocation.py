"""How the user called the program, for texts that say what to type."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

DOORS = ("train", "translate", "diversify")
FRONT = "twinformer"


def words(command: str) -> str:
    """What to type for a command: ``python train.py`` in a checkout, else ``twinformer train``."""
    called = Path(sys.argv[0]) if sys.argv else Path()
    if called.suffix == ".py" and called.stem in DOORS:
        return f"python {command}.py" if command in DOORS else f"python -m {command}"
    if called.name == "__main__.py" and called.parent.name != FRONT and command not in DOORS:
        return f"python -m {command}"
    front = f"python -m {FRONT}" if called.name == "__main__.py" else FRONT
    return f"{front} {command}"


def typed(word: str | Path) -> str:
    """A word of a command as the system's shell takes it, in quotes where it needs them."""
    return subprocess.list2cmdline([str(word)]) if os.name == "nt" else shlex.quote(str(word))


def as_called(text: str) -> str:
    """A text of help in which ``python -m convert`` and the like read as the user called them."""

    def in_words(found: re.Match[str]) -> str:
        package, word = found.groups()
        if words(package) == f"python -m {package}":
            return found.group()
        return words(word.strip()) if word else words(package)

    named = r"python -m (convert|parity)\b((?<=convert) (?:inspect|average)\b)?"
    return re.sub(named, in_words, text)
