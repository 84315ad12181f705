"""The Orbax container: a folder of arrays, nested dicts as dotted names.

Reading needs only ``tensorstore``; writing needs ``orbax-checkpoint``, which brings jax.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.tensors import Header, Tensors
from convert.formats.content import nest
from convert.formats.silence import silent_writers
from training_recipe.files.writing import sync_tree
from transformer_spec import UserError

METADATA = "_METADATA"
SYSTEM_ERROR = re.compile(r"os(?:_error_code='| error )(\d+)")  # in tensorstore's words
MAX_RATIO = 1000
SMALL = 1 << 26


def is_orbax(path: Path) -> bool:
    return (path / METADATA).is_file()


class OrbaxFolder(Tensors):
    """One Orbax checkpoint as StandardCheckpointer and PyTreeCheckpointer write it."""

    def __init__(self, path: Path) -> None:
        metadata = _read_metadata(path)
        self.stores = _open_stores(path, metadata)
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
            raise UserError(f"{self.label}: cannot read {name!r}: {_reason(error)}") from error


def open_orbax(path: Path) -> Tensors:
    """The arrays of an Orbax folder, named by their dict keys joined with dots."""
    return OrbaxFolder(path)


def _read_metadata(path: Path) -> dict[str, Any]:
    try:
        content = json.loads((path / METADATA).read_text(encoding="utf-8"))
        content["tree_metadata"].items()
    except FileNotFoundError:
        raise UserError(
            f"{path} has no {METADATA}: it is half-written or no Orbax checkpoint; "
            "give the folder that holds this file"
        ) from None
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path / METADATA} is damaged: {error!r}") from error
    return content


def _open_stores(path: Path, metadata: dict[str, Any]) -> dict[str, Any]:
    """Every array opened (shape and dtype known), none read."""
    tensorstore = _import_tensorstore()
    driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
    try:
        names = [_name(entry) for entry in metadata["tree_metadata"].values() if _is_array(entry)]
        pending = {}
        for name in names:
            if name in pending:
                raise ValueError(f"two arrays are named {name!r}")
            spec = {"driver": driver, "kvstore": _place(path, name, metadata)}
            if metadata.get("store_array_data_equal_to_fill_value") is True:
                spec["fill_missing_data_reads"] = False  # lost numbers are no zeros
            pending[name] = tensorstore.open(spec, open=True, read=True)
        return {name: future.result() for name, future in pending.items()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is damaged or half-written: {_reason(error)}") from error


def _name(entry: dict[str, Any]) -> str:
    return ".".join(str(key["key"]) for key in entry["key_metadata"])


def _is_array(entry: dict[str, Any]) -> bool:
    """Whether there is an array; a part of an optimizer's state may hold nothing."""
    return entry.get("value_metadata", {}).get("value_type") != "None"


def _place(path: Path, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Where tensorstore finds one array: inside the OCDBT database, or in a folder of its own."""
    if metadata.get("use_ocdbt", True):
        base = {"driver": "file", "path": f"{path.resolve()}/"}
        return {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    place = (path / name).resolve()
    if path.resolve() not in place.parents:
        raise ValueError(f"{name!r} leads out of the folder")
    return {"driver": "file", "path": f"{place}/"}


def _check_sizes(path: Path, headers: dict[str, Header]) -> None:
    """No array far larger than what is stored: tensorstore ends the process where memory ends."""
    stored = sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    for name, header in headers.items():
        if header.size > max(SMALL, MAX_RATIO * stored):
            raise UserError(
                f"{path} is damaged: {name!r} should be {header}, {header.size} bytes, and the "
                f"whole folder has {stored}"
            )


def _import_tensorstore() -> Any:
    try:
        import tensorstore
    except ImportError as error:
        raise UserError(
            "reading an Orbax checkpoint needs tensorstore; install it with twinformer[torch] or "
            "twinformer[jax]"
        ) from error
    return tensorstore


def _reason(error: Exception) -> str:
    """A tensorstore error on one line, without the specification that it appends."""
    return " ".join(str(error).partition(" [tensorstore_spec")[0].split()) or repr(error)


def write_orbax(path: Path, tensors: Tensors) -> None:
    """Write a folder as StandardCheckpointer does and force it onto the disk."""
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise UserError(
            "writing an Orbax checkpoint needs twinformer[jax]; --container safetensors does not"
        ) from error
    if path.exists():
        raise UserError(f"{path} exists already")
    tree = with_optax_state(nested(tensors.read_all()))
    try:
        with silent_writers(), orbax.checkpoint.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.resolve(), tree)
        sync_tree(path)
    except (OSError, ValueError) as error:
        refused = SYSTEM_ERROR.search(str(error))
        if refused:
            number = int(refused[1])
            raise OSError(number, os.strerror(number), str(path)) from None
        raise UserError(f"cannot write {path}: {_reason(error)}") from error


def with_optax_state(tree: dict[str, Any]) -> dict[str, Any]:
    """``opt_state`` as what optax.adamw has: Adam's state, and two parts that hold nothing."""
    if tree.get("opt_state", {}).keys() != {"0"}:
        return tree
    return tree | {"opt_state": (tree["opt_state"]["0"], None, None)}


def nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Dotted names as nested dicts; a name that is also the beginning of another is a UserError."""
    rows = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return nest({name: row.reshape(arrays[name].shape) for name, row in rows.items()})
