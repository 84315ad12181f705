"""SHA-256 of A's files: a certificate tells which A it was that B was compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convert.checkpoints.folders import CONFIG, locate
from convert.formats.shards import INDEX_SUFFIX
from parity.fingerprints import Files, read_files, read_named
from parity.given import HUGGING_FACE, MODULE, exists, local_path


def files_of_a(given: str, not_covered: tuple[str, ...]) -> dict[str, dict[str, Any]] | None:
    """Fingerprints by name below A; None where A is not there.

    Of a run: the checkpoint that it is used by and its config; of a weight file: it and the config
    beside it; of a module: its file, not what that imports. Links are followed. A file that cannot
    be read is ``{"fault": reason}``. ``not_covered`` are names that are left out.
    """
    path = local_path(given)
    if not exists(str(path)):
        return None
    if given.startswith(HUGGING_FACE):
        files = read_files(path, not_covered, follow=True)
    else:
        files = found_files(path, given.startswith(MODULE), not_covered)
    entries = files.found | {name: {"fault": why} for name, why in files.faults.items()}
    return {n: e for n, e in sorted(entries.items()) if Path(n).name not in not_covered}


def found_files(path: Path, alone: bool, not_covered: tuple[str, ...]) -> Files:
    """The files that a path stands for; ``alone`` where nothing beside it counts."""
    if path.is_file() and not path.name.endswith(INDEX_SUFFIX):
        beside = [] if alone else [path.with_name(CONFIG)]
        return read_named({p.name: p for p in (path, *beside) if p.is_file()})
    if path.is_file():
        return read_files(path.parent, not_covered, follow=True)
    place = locate(path)
    files = read_files(place.weights, not_covered, follow=True)
    if place.home is None or place.home == place.weights:
        return files
    config = read_named({CONFIG: place.home / CONFIG})
    return Files(files.found | config.found, files.faults | config.faults)
