"""What a file is by its first bytes, whatever its name; what is no weights is said to be that."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

from convert.formats.arrays import file_size
from convert.formats.ctranslate2 import CTRANSLATE2, specification_in
from convert.formats.other_files import UNPACK, first_bytes
from convert.formats.torch_file.old_form import is_legacy
from convert.formats.torch_file.reader import PICKLES
from transformer_spec import UserError

CONTAINERS = ("safetensors", "pt", "npz", "msgpack", CTRANSLATE2)
# How msgpack begins a map that is not empty: the first byte -> where its first key is.
MAPS = {**dict.fromkeys(range(0x81, 0x90), 1), 0xDE: 3, 0xDF: 5}
TEXTS = (*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB)  # and how a text


def container_of(path: Path) -> str | None:
    """Which container a file is by its content (``CONTAINERS``); None where it is none.

    What is known to be something else, or is empty, is a UserError that says what to do.
    """
    start = first_bytes(path)
    if start.startswith(b"PK\x03\x04"):
        return _zip_of(path, start)
    if specification_in(start) is not None:
        return CTRANSLATE2
    if start.startswith(PICKLES) or (len(start) >= 32 and is_legacy(start)):
        return "pt"
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length <= file_size(path) - 8:
        return "safetensors"
    key = MAPS.get(start[0], len(start))
    return "msgpack" if start[key : key + 1] and start[key] in TEXTS else None


def _zip_of(path: Path, start: bytes) -> str:
    """Whether a zip archive is torch's, NumPy's or one of files.

    One that was cut off has no list of its files; its reader says so.
    """
    names: list[str] = []
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return "pt"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if names:
        raise UserError(f"{path} is an archive (zip) of files such as {names[0]}; {UNPACK}")
    length = int.from_bytes(start[26:28], "little")
    is_numpy = start[30 : 30 + length].endswith(b".npy") or path.suffix == ".npz"
    return "npz" if is_numpy else "pt"
