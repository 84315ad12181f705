"""SHA-256 and size of every file of a folder."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from convert.core.parallel import CORES

BLOCK = 1 << 20


class Files(NamedTuple):
    """The files of a folder by relative posix name, and why others cannot be told.

    A file is ``{"bytes": size, "sha256": hex}``, a link inside of the folder ``{"link": name}``.
    """

    found: dict[str, dict[str, Any]]
    faults: dict[str, str]


def read_files(
    folder: Path, without: Collection[str] = (), ours: Collection[str] = (), follow: bool = False
) -> Files:
    """Fingerprint every file below a folder, with a bar in bytes; no link is followed out of it.

    ``without`` are names at the top of the folder that are left out; so is what a killed process
    left half-written of ``ours``. With ``follow`` a link counts as what it leads to, but
    for one that leads back to a folder above it.
    """
    files, paths = Files({}, {}), {}

    def unreadable(error: OSError) -> None:
        files.faults[relative(Path(error.filename), folder)] = error.strerror or str(error)

    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=follow):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in without]
            names = [name for name in names if name not in without and not left_over(name, ours)]
        links = [name for name in folders if is_end(Path(place) / name, follow)]
        folders[:] = [name for name in folders if name not in links]
        for path in (Path(place) / name for name in (*names, *links)):
            if follow and path.is_file():
                paths[relative(path, folder)] = path
            else:
                note(path, folder, files, paths)
    hash_all(paths, files)
    ordered = dict(sorted(files.found.items()))
    return Files(ordered, files.faults)


def read_named(paths: Mapping[str, Path]) -> Files:
    """Fingerprint files by the names that they are given here."""
    files = Files({}, {})
    hash_all(paths, files)
    return files


def is_end(path: Path, follow: bool) -> bool:
    """Whether a folder is a link that is not to be entered: without ``follow``, or a circle."""
    if not path.is_symlink():
        return False
    return not follow or path.resolve() in [parent.resolve() for parent in path.parents]


def left_over(name: str, ours: Collection[str]) -> bool:
    """Whether a name is that under which one of ``ours`` is written before it is renamed."""
    return any(name.startswith(f".{own}.partial-") for own in ours)


def note(path: Path, folder: Path, files: Files, paths: dict[str, Path]) -> None:
    """Put one entry of a folder where it belongs: to hash, a link, or a fault."""
    name = relative(path, folder)
    if not path.is_symlink():
        if path.is_file():
            paths[name] = path
        else:
            files.faults[name] = "is neither file nor folder"
        return
    try:
        files.found[name] = {"link": relative(path.resolve(), folder.resolve())}
    except (ValueError, OSError, RuntimeError):
        files.faults[name] = "is a link out of the folder, which is not followed; copy the file"


def relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def hash_all(paths: Mapping[str, Path], files: Files) -> None:
    """Fingerprint files on all cores; one that cannot be read is a fault."""
    stop, lock = threading.Event(), threading.Lock()
    with (
        tqdm(
            total=sum(map(size_of, paths.values())),
            unit="B",
            unit_scale=True,
            disable=None,
            leave=False,
        ) as bar,
        ThreadPoolExecutor(CORES) as pool,
    ):

        def count(size: int) -> bool:
            with lock:
                bar.update(size)
            return not stop.is_set()

        try:
            running = {name: pool.submit(hash_file, path, count) for name, path in paths.items()}
            for name, future in running.items():
                try:
                    files.found[name] = future.result()
                except OSError as error:
                    files.faults[name] = f"cannot be read ({error.strerror or error})"
        finally:
            stop.set()


def size_of(path: Path) -> int:
    """Bytes of a file for the bar; nothing where it is gone, which hashing it will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def hash_file(path: Path, go_on: Callable[[int], bool]) -> dict[str, Any]:
    """Size and SHA-256 of one file, read in blocks; ``go_on`` gets the bytes of each."""
    found, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            found.update(block)
            size += len(block)
            if not go_on(len(block)):
                break
    return {"bytes": size, "sha256": found.hexdigest()}


def shown(name: str) -> str:
    """A file's name for one line of text, whatever bytes it has."""
    return name if name.isprintable() else ascii(name)
