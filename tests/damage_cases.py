"""Ways in which files come to hold something else than what was written."""

import json
import struct
from pathlib import Path


def flip(path: Path, at: int, bit: int = 6) -> None:
    """One bit of a file's byte."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def flip_in_tensor(path: Path, name: str) -> None:
    """One bit in the middle of a tensor of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    start, end = json.loads(content[8 : 8 + length])[name]["data_offsets"]
    flip(path, 8 + length + (start + end) // 2)


def largest_file(folder: Path) -> Path:
    """Of an Orbax folder: where the numbers are."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def forget_tensors(checkpoint: Path) -> None:
    """A checkpoint as older versions wrote it: hashes of whole files alone."""
    from training_recipe.files.fingerprints import fingerprints

    (checkpoint / "tensors.json").unlink()
    content = {"step": 1, "files": fingerprints(checkpoint, besides="progress.json")}
    (checkpoint / "progress.json").write_text(json.dumps(content))
