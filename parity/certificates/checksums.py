"""SHA-256 of every file of a model, and the list that ``sha256sum -c`` reads."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from convert.checkpoints.folders.config_files import CONFIG
from convert.checkpoints.folders.location import locate
from convert.formats.shards import INDEX_SUFFIX
from parity.sides.given import HUGGING_FACE, MODULE, exists, local_path
from training_recipe.files.fingerprints import fingerprint
from transformer_spec import Faults, UserError
from transformer_spec.cores import cores

SUMS = "SHA256SUMS"
LINE = re.compile(r"(\\?)([0-9a-f]{64}) [ *](.+)")
# How sha256sum writes what would end a line.
ESCAPED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}

Checksums = dict[str, str]


def files_below(folder: Path, besides: Collection[str] = ()) -> dict[str, Path]:
    """Every file below a folder by relative name, but for names at its top in ``besides``.

    Links count as what they lead to, but for one that leads back to a folder above it. What is
    neither file nor folder and what cannot be listed are one UserError. Hidden files that a killed
    process left half-written are left out.
    """
    files, faults = {}, Faults()

    def unreadable(error: OSError) -> None:
        faults.add(f"{error.filename}: {error.strerror or error}")

    for place, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        here = Path(place)
        at_top = here == folder
        folders[:] = [name for name in folders if not is_circle(here / name)]
        if at_top:
            folders[:] = [name for name in folders if name not in besides]
        for path in (here / name for name in names if not (at_top and name in besides)):
            name = path.relative_to(folder).as_posix()
            faults.require(path.is_file(), f"{shown(name)}: no file can be read there")
            files[name] = path
    faults.raise_if_any(f"no checksums of {folder}")
    partial = re.compile(r"\.[^/]+\.partial-(\d+-)?[0-9a-f]{8}")
    return {name: path for name, path in sorted(files.items()) if not partial.fullmatch(name)}


def is_circle(path: Path) -> bool:
    return path.is_symlink() and path.resolve() in [parent.resolve() for parent in path.parents]


def checksums(files: Mapping[str, Path]) -> Checksums:
    """SHA-256 of files by the names that they are given here, on all cores, with a bar in bytes.

    A file that two names lead to is read once; all that cannot be read are one UserError.
    """
    real = {name: path.resolve() for name, path in files.items()}
    faults, found = Faults(), {}
    with (
        tqdm(total=len(set(real.values())), unit="file", disable=None, leave=False) as bar,
        ThreadPoolExecutor(cores()) as pool,
    ):
        running = {path: pool.submit(fingerprint, path) for path in set(real.values())}
        for path, future in running.items():
            try:
                found[path] = future.result()["sha256"]
            except OSError as error:
                faults.add(f"{path} cannot be read ({error.strerror or error})")
            bar.update()
    faults.raise_if_any("no checksums")
    return {name: found[path] for name, path in real.items()}


def files_of(given: str, besides: Collection[str]) -> dict[str, Path] | None:
    """The files of a side as it was typed; None where they are not there.

    Of a run: the checkpoint that it is used by and its config; of a weight file: it and the config
    beside it; of a module: its file, not what that imports.
    """
    path = local_path(given)
    if not exists(str(path)):
        return None
    if path.is_file() and not path.name.endswith(INDEX_SUFFIX):
        beside = [] if given.startswith(MODULE) else [path.with_name(CONFIG)]
        return {p.name: p for p in (path, *beside) if p.is_file()}
    if path.is_file() or given.startswith(HUGGING_FACE):
        return files_below(path.parent if path.is_file() else path, besides)
    place = locate(path)
    if place.weights.is_file():
        return {p.name: p for p in (place.weights, path / CONFIG) if p.is_file()}
    files = files_below(place.weights, besides)
    home = place.home is not None and place.home != place.weights
    return files | ({CONFIG: place.home / CONFIG} if home and place.home else {})


def sums_text(found: Checksums) -> str:
    """The lines of a list that ``sha256sum -c`` reads."""
    lines = []
    for name, digest in found.items():
        written = "".join(ESCAPED.get(letter, letter) for letter in name)
        lines.append(f"{chr(92) if written != name else ''}{digest}  {written}\n")
    return "".join(lines)


def read_sums(path: Path) -> Checksums:
    """The list of a file; lines that are none of ``sha256sum`` are one UserError."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    faults, found = Faults(), {}
    for number, line in enumerate(lines, 1):
        matched = LINE.fullmatch(line)
        if matched is None:
            faults.add(f"line {number} is none of sha256sum")
            continue
        escaped, digest, name = matched.groups()
        found[unescaped(name) if escaped else name] = digest
    faults.raise_if_any(f"{path} is damaged")
    return found


def unescaped(name: str) -> str:
    plain = {written: letter for letter, written in ESCAPED.items()}
    return re.sub(r"\\[\\nr]", lambda found: plain[found[0]], name)


def shown(name: str) -> str:
    """A file's name for one line of text, whatever bytes it has."""
    return name if name.isprintable() else ascii(name)
