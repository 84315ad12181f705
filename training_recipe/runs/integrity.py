"""Whether a checkpoint folder is whole: its progress.json holds every other file's fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training_recipe.files.fingerprints import fingerprint, fingerprints
from training_recipe.files.json_files import json_text, read_json
from training_recipe.runs.folder import CHECKPOINTS, RunFolder
from training_recipe.runs.progress import PROGRESS, Progress
from transformer_spec.errors import Faults, UserError, printable_name, text_fault


def seal(folder: Path, progress: Progress) -> None:
    """Write progress.json, with the fingerprint of every other file of the checkpoint."""
    content = progress.to_dict() | {"files": fingerprints(folder, besides=PROGRESS)}
    (folder / PROGRESS).write_text(json_text(content), encoding="utf-8")


def sealed_files(folder: Path) -> dict[str, dict[str, Any]]:
    """What progress.json says of the other files; UserError where it says it in no known way."""
    files, faults = read_json(folder / PROGRESS).get("files", {}), Faults()
    faults.require(isinstance(files, dict), "files is no object")
    for name, said in files.items() if isinstance(files, dict) else ():
        known = isinstance(said, dict) and said.keys() == {"bytes", "sha256"}
        whole = known and type(said["bytes"]) is int and isinstance(said["sha256"], str)
        faults.require(whole, f"files.{printable_name(name)} is no size and sha256")
        plain = text_fault(name) is None and ".." not in Path(name).parts
        faults.require(
            plain and not Path(name).is_absolute(), f"{name!r} of files is no file's name"
        )
    faults.raise_if_any(f"{folder / PROGRESS} is damaged")
    return files


def damage(folder: Path, contents: bool = True) -> str | None:
    """What is wrong with a checkpoint folder, naming the file, or None if it is whole.

    Without ``contents`` no file is read to its end: only what is missing or too short is found.
    """
    if not folder.is_dir():
        return f"{folder} does not exist"
    try:
        Progress.load(folder / PROGRESS)
        files = sealed_files(folder)
    except UserError as error:
        return str(error)
    return changed_file(folder, files, contents)


def whole_beside(folder: Path) -> str:
    """What to read in the place of a run's checkpoint: the newest of the others that is whole."""
    if folder.parent.name != CHECKPOINTS:
        return ""
    run = RunFolder(folder.parent.parent)
    others = (s for s in reversed(run.steps()) if run.checkpoint(s).name != folder.name)
    step = next((s for s in others if damage(run.checkpoint(s)) is None), None)
    if step is None:
        return ""
    place = run.checkpoint(step)
    return f"take {place}, which is whole (of translate and transcribe also --checkpoint {step})"


def changed_file(
    folder: Path, files: Mapping[str, Mapping[str, Any]], contents: bool = True
) -> str | None:
    """What is wrong with the first file that is not as its fingerprint says, or None."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != expected["bytes"]:
            size = path.stat().st_size
            return f"{path} is truncated: it has {size} bytes, not {expected['bytes']}"
        if contents and fingerprint(path) != expected:
            return f"{path} is damaged: its content is not what was saved"
    return None
