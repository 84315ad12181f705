"""Paths as users give them to calls and commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformer_spec.errors import UserError, text_fault


def as_path(value: object, name: str) -> Path:
    """The path that was given for ``name``; ``~/`` at its beginning is the user's home.

    What is no path is a UserError.
    """
    fault = path_fault(value)
    if fault is not None:
        raise UserError(f"{name} {fault}")
    return Path(at_home(_text(value)))


def path_fault(value: object) -> str | None:
    """Why a value is no path, to be said after its name; None where it is one."""
    if not isinstance(value, str | os.PathLike):
        return f"is of type {type(value).__name__}; give the path of a folder or a file"
    text = _text(value)
    if not text:
        return "is '', which is no path; the current folder is '.'"
    fault = text_fault(text)
    return None if fault is None else f"is {text!r}: {fault}"


def _text(path: Any) -> str:
    return os.fsdecode(path)


def at_home(text: str) -> str:
    """A path with its ``~/`` as a shell would have put it, which leaves quoted words as they are.

    Of other users' homes (``~name``) nothing is known, as files may have such names.
    """
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text
