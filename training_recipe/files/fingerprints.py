"""Fingerprints of files: their size and their SHA-256."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def fingerprints(folder: Path, besides: str | None = None) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below ``folder`` not named ``besides``, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != besides)
    return {path.relative_to(folder).as_posix(): fingerprint(path) for path in files}


def fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
