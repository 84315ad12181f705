"""Fingerprints of files: their size and their SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1 << 20


def fingerprints(folder: Path, besides: str | None = None) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below ``folder`` not named ``besides``, by relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != besides)
    return {path.relative_to(folder).as_posix(): fingerprint(path) for path in files}


def fingerprint(path: Path, seen: Callable[[int], object] | None = None) -> dict[str, Any]:
    """``{"bytes": size, "sha256": hex}`` of a file.

    ``seen`` is told the bytes of each block that was read, for a bar, or to end it by raising.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            size += len(block)
            if seen is not None:
                seen(len(block))
    return {"bytes": size, "sha256": digest.hexdigest()}
