"""CTranslate2's model.bin written down by hand, byte after byte, and read back by a few lines."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)


def text(name: str) -> bytes:
    raw = name.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw


def variable(name: str, array: np.ndarray, code: int | None = None) -> bytes:
    array = np.asarray(array)
    code = CODES[str(array.dtype)] if code is None else code
    head = text(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
    return head + struct.pack("<BI", code, array.nbytes) + array.tobytes()


def model_bin(
    arrays: Mapping[str, np.ndarray],
    aliases: Mapping[str, str] | None = None,
    specification: str = "WhisperSpec",
    version: int = 6,
    revision: int = 3,
) -> bytes:
    """A whole file; variables in the order that is given."""
    named = dict(aliases or {})
    parts = [struct.pack("<I", version), text(specification), struct.pack("<I", revision)]
    parts += [struct.pack("<I", len(arrays)), *(variable(n, a) for n, a in arrays.items())]
    parts += [struct.pack("<I", len(named)), *(text(a) + text(n) for a, n in named.items())]
    return b"".join(parts)


def variables_of(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every variable as it is stored, and the aliases, of a file that is whole."""
    data, at = path.read_bytes(), 0

    def number(kind: str) -> int:
        nonlocal at
        (found,) = struct.unpack_from("<" + kind, data, at)
        at += struct.calcsize("<" + kind)
        return found

    def name() -> str:
        nonlocal at
        size = number("H")
        at += size
        return data[at - size : at - 1].decode()

    assert number("I") == 6
    assert name() and number("I")
    arrays, aliases = {}, {}
    for _ in range(number("I")):
        key = name()
        shape = [number("I") for _ in range(number("B"))]
        dtype, size = TYPES[number("B")], number("I")
        arrays[key] = np.frombuffer(data[at : at + size], dtype).reshape(shape)
        at += size
    for _ in range(number("I")):
        alias = name()
        aliases[alias] = name()
    assert at == len(data)
    return arrays, aliases
