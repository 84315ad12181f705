"""What a file is by its first bytes, whatever its name; what is no weights is said to be that."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

from convert.formats.arrays import file_size, read_bytes
from convert.formats.torch_file.old_form import is_legacy
from convert.formats.torch_file.reader import PICKLES
from transformer_spec import UserError

START = 512
MAPS = (*range(0x81, 0x90), 0xDE, 0xDF)  # how msgpack begins a map that is not empty
ARCHIVES = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z",
            b"\x28\xb5\x2f\xfd": "zstandard", b"Rar!": "rar"}  # fmt: skip
UNPACK = "unpack it and name what is inside"
OTHERS = {
    b"version https://git-lfs": "a pointer of git-lfs, not the weights: run git lfs pull there, or "
    "download the file itself",
    b"\x89HDF": "an HDF5 file of TensorFlow; load it there with from_tf=True of transformers 4 and "
    "save_pretrained it as safetensors",
    b"GGUF": "a GGUF file of llama.cpp, whose weights are of no encoder-decoder here",
    b"<": "a page in HTML or XML, which a server gives in place of a file that needs a login or is "
    "not there: download it again",
}


def container_of(path: Path) -> str | None:
    """``safetensors``, ``pt``, ``npz`` or ``msgpack`` by the file's content; None where it is none.

    What is known to be something else, or is empty, is a UserError that says what to do.
    """
    size = file_size(path)
    if size == 0:
        raise UserError(f"{path} is empty: it was not written to its end; get it again")
    start = read_bytes(path, 0, min(size, START))
    _refuse_others(path, start)
    if start.startswith(b"PK\x03\x04"):
        return _zip_of(path)
    if start.startswith(PICKLES) or (len(start) >= 32 and is_legacy(start)):
        return "pt"
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length <= size - 8:
        return "safetensors"
    return "msgpack" if start[0] in MAPS else None


def _refuse_others(path: Path, start: bytes) -> None:
    archive = next((kind for magic, kind in ARCHIVES.items() if start.startswith(magic)), None)
    if archive or start[257:262] == b"ustar":
        raise UserError(f"{path} is an archive ({archive or 'tar'}); {UNPACK}")
    for magic, what in OTHERS.items():
        if start.lstrip()[: len(magic)] == magic:
            raise UserError(f"{path} is {what}")
    if start[4:5] and start[6 : 6 + start[4]].endswith(b"Spec\0"):
        raise UserError(
            f"{path} is a model of CTranslate2, whose weights nothing reads back; give the "
            "checkpoint that it was made from"
        )
    if path.suffix == ".onnx":
        raise UserError(
            f"{path} is an ONNX program, which keeps no names of a model's parts; give the weights "
            "that it was exported from"
        )


def _zip_of(path: Path) -> str | None:
    """Whether a zip archive is torch's, NumPy's or one of files; None where it is damaged."""
    names: list[str] = []
    with contextlib.suppress(Exception), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("/data.pkl") for name in names):
        return "pt"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    if names:
        raise UserError(f"{path} is an archive (zip) of files such as {names[0]}; {UNPACK}")
    return None
