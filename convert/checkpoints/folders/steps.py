"""Folders of several steps, and steps of several items, as a CheckpointManager and Flax write them.

``FOLDER/STEP/default/``, ``FOLDER/STEP/ITEM/``, ``FOLDER/checkpoint_STEP`` (a file or a folder).
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import NamedTuple

from convert.core.tensors import Joined, Renamed, Tensors
from convert.formats.content import some_of
from convert.formats.kinds import container_of
from convert.formats.orbax import is_orbax, open_orbax
from transformer_spec import UserError

STEP = re.compile(r"(?:.*[_-])?(\d{1,18})")
UNFINISHED = ".orbax-checkpoint-tmp"
STEP_MARK = "_CHECKPOINT_METADATA"
OUR_ITEM = "orbax"  # what our own checkpoints are called, whose folder has more beside it


class Step(NamedTuple):
    """One of several steps: a file, an Orbax folder or one of items, and the rest of the key."""

    path: Path
    key: str | None
    note: str


def newest_step(folder: Path, key: str | None) -> Step | None:
    """The newest step of a folder, or the one that the key begins with; None without steps."""
    named = [(int(m[1]), p) for p in _entries(folder) if (m := STEP.fullmatch(p.name))]
    steps = sorted((number, path) for number, path in named if _is_step(path))
    if not steps:
        return None
    first, _, rest = (key or "").partition(".")
    asked = [(n, path) for n, path in steps if first in (path.name, str(n))]
    number, path = (asked or steps)[-1]
    others = [other.name for _, other in steps if other != path]
    more = f"the newest of {len(steps)}; --key or the path names another: {some_of(others)}"
    chosen = "as --key says" if asked else more if others else "the only one"
    note = f"step {number} of {folder} is read ({path.name}), {chosen}"
    return Step(path, (rest or None) if asked else key, note)


def items_of(step: Path) -> dict[str, Path]:
    """The items of a step that hold arrays, by name; what may not be looked into is none."""
    return {p.name: p for p in _entries(step) if p.name != OUR_ITEM and _is_item(p)}


def _is_item(path: Path) -> bool:
    with contextlib.suppress(PermissionError):
        return is_orbax(path)
    return False


def is_step(path: Path) -> bool:
    """Whether a folder is one step with its items in folders of their own."""
    if not path.is_dir() or is_orbax(path):
        return False
    items = items_of(path)
    numbered = all(map(STEP.fullmatch, items)) and not (path / STEP_MARK).is_file()
    return bool(items) and not numbered


def is_step_above(path: Path) -> bool:
    """``is_step`` of a folder that was not given; one that this user may not look into is none."""
    with contextlib.suppress(PermissionError):
        return is_step(path)
    return False


def open_items(step: Path) -> Tensors:
    """The arrays of a step; of several items each has its name before theirs."""
    items = items_of(step)
    if len(items) == 1:
        return open_orbax(*items.values())
    opened = {name: open_orbax(path) for name, path in items.items()}
    named = {k: Renamed(t, {f"{k}.{name}": name for name in t}) for k, t in opened.items()}
    return Joined(str(step), [*named.values()])


def check_finished(path: Path) -> None:
    """UserError where Orbax was still writing into a folder, which its name then says."""
    begun = next((place for place in (path, *path.parents) if UNFINISHED in place.name), None)
    if begun is not None:
        raise UserError(
            f"{begun} was not written to the end, as its name says; take another checkpoint, or "
            "give it another name where you know that all of it is there"
        )


def unfinished(folder: Path) -> list[str]:
    """What Orbax was writing into a folder when it was stopped."""
    return [path.name for path in _entries(folder) if UNFINISHED in path.name]


def _is_step(path: Path) -> bool:
    if path.is_dir():
        return _is_item(path) or is_step_above(path)
    return path.stat().st_size > 0 and _container(path) == "msgpack"


def _container(path: Path) -> str | None:
    try:
        return container_of(path)
    except UserError:
        return None


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
