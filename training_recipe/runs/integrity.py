"""Whether a checkpoint folder is whole: its progress.json holds every other file's fingerprint."""

from __future__ import annotations

from pathlib import Path

from training_recipe.files.fingerprints import fingerprint, fingerprints
from training_recipe.files.json_files import json_text, read_json
from training_recipe.runs.progress import PROGRESS, Progress
from transformer_spec.errors import UserError


def seal(folder: Path, progress: Progress) -> None:
    """Write progress.json, with the fingerprint of every other file of the checkpoint."""
    content = progress.to_dict() | {"files": fingerprints(folder, besides=PROGRESS)}
    (folder / PROGRESS).write_text(json_text(content), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, naming the file, or None if it is whole."""
    if not folder.is_dir():
        return f"{folder} does not exist"
    try:
        Progress.load(folder / PROGRESS)
        files = read_json(folder / PROGRESS).get("files", {})
    except UserError as error:
        return str(error)
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if path.stat().st_size != expected["bytes"]:
            size = path.stat().st_size
            return f"{path} is truncated: it has {size} bytes, not {expected['bytes']}"
        if fingerprint(path) != expected:
            return f"{path} is damaged: its content is not what was saved"
    return None
