"""Arrays that tensorstore keeps in folders or in a database, opened by its specifications."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.tensors import Header, Tensors
from transformer_spec import UserError

Spec = dict[str, Any]
MAX_RATIO = 1000
SMALL = 1 << 26


class ArrayFolders(Tensors):
    """The arrays of one checkpoint that have files of their own."""

    def __init__(self, path: Path, specs: Mapping[str, Spec]) -> None:
        self.stores = _open_stores(path, specs)
        headers = {
            name: Header(tuple(store.shape), np.dtype(store.dtype.numpy_dtype))
            for name, store in self.stores.items()
        }
        _check_sizes(path, headers)
        super().__init__(str(path), headers)

    def read(self, name: str) -> np.ndarray:
        try:
            return np.asarray(self.stores[name].read().result())
        except (OSError, ValueError) as error:
            raise UserError(f"{self.label}: cannot read {name!r}: {reason(error)}") from error


def _open_stores(path: Path, specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Every array opened (shape and dtype known), none read."""
    tensorstore = import_tensorstore()
    try:
        pending = {n: tensorstore.open({"open": True, **s}, read=True) for n, s in specs.items()}
        return {name: future.result() for name, future in pending.items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is damaged or half-written: {reason(error)}") from error


def place(root: Path, name: str) -> Spec:
    """Where tensorstore finds the folder of one array; ValueError where it is elsewhere.

    ``root`` is the resolved path of the checkpoint.
    """
    folder = (root / name).resolve()
    if root not in folder.parents:
        raise ValueError(f"{name!r} leads out of the folder")
    return {"driver": "file", "path": f"{folder}/"}


def _check_sizes(path: Path, headers: dict[str, Header]) -> None:
    """No array far larger than what is stored: tensorstore ends the process where memory ends."""
    stored = sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    for name, header in headers.items():
        if header.size > max(SMALL, MAX_RATIO * stored):
            raise UserError(
                f"{path} is damaged: {name!r} should be {header}, {header.size} bytes, and the "
                f"whole folder has {stored}"
            )


def import_tensorstore() -> Any:
    try:
        import tensorstore
    except ImportError as error:
        raise UserError(
            "an Orbax or T5X checkpoint needs tensorstore, which is not installed: "
            "pip install 'twinformer[torch]' or 'twinformer[jax]' brings it"
        ) from error
    return tensorstore


def reason(error: Exception) -> str:
    """A tensorstore error on one line, without the specification that it appends."""
    return " ".join(str(error).partition(" [tensorstore_spec")[0].split()) or repr(error)
