"""How the user called the program, for messages that say what to type next."""

from __future__ import annotations

import sys
from pathlib import Path

DOORS = ("train", "translate", "diversify")


def words(command: str) -> str:
    """What to type for a command: ``python train.py`` in a checkout, else ``twinformer train``."""
    called = Path(sys.argv[0]).name if sys.argv else ""
    if called.removesuffix(".py") in DOORS and called.endswith(".py"):
        return f"python {command}.py" if command in DOORS else f"python -m {command}"
    return f"twinformer {command}"
