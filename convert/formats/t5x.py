"""The container of T5X: a tree in MessagePack whose larger arrays lie in folders beside it.

In place of such an array the tree has the specification that tensorstore wrote it with. What that
says of a file system (``gfile``, ``gcs``) was so where it was written: here the folders are files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convert.core.tensors import Joined, Tensors
from convert.formats.array_folders import ArrayFolders, Spec, place
from transformer_spec import Faults

MARKS = {"driver", "kvstore", "metadata"}
DRIVER = "zarr"
HEADER = ".zarray"
METADATA = ("shape", "chunks", "compressor")
# What is not read of a checkpoint may be gone: the state of its optimizer.
STATE = re.compile(r"(optimizer\.)?state\.")
MISSING = "are missing"


def specs_in(tree: Any) -> dict[str, Spec]:
    """The arrays that a tree has specifications of, under their keys joined with dots."""
    found = dict[str, Spec]()
    for key, part in tree.items() if isinstance(tree, dict) else ():
        if isinstance(part, dict) and part.keys() >= MARKS:
            found[key] = part
        else:
            found |= {f"{key}.{name}": spec for name, spec in specs_in(part).items()}
    return found


def open_named(path: Path, specs: Mapping[str, Spec], inside: Tensors) -> Tensors:
    """The arrays of a folder whose tree names some of them and has the others inside.

    Every array without its folder, and every specification that cannot be followed, is named in
    one UserError.
    """
    faults, root, opened = Faults(), path.resolve(), dict[str, Spec]()
    for name, spec in specs.items():
        try:
            opened[name] = _opening(root, spec)
        except FileNotFoundError as error:
            if STATE.match(name) is None:
                faults.add(f"{name!r} should lie in {error}, which is not there", MISSING)
        except (OSError, ValueError, TypeError) as error:
            faults.add(f"{name!r}: {error}")
    faults.raise_if_any(f"{path} is damaged or half-written")
    if not opened:
        return inside
    return Joined(str(path), [ArrayFolders(path, opened), inside])


def _opening(root: Path, spec: Spec) -> Spec:
    """How tensorstore opens an array: as its folder says or, if that says nothing, as the tree."""
    if spec["driver"] != DRIVER:
        raise ValueError(f"its driver is {spec['driver']!r}; {DRIVER} is read")
    kvstore = place(root, _path_in(spec))
    folder = Path(kvstore["path"])
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    # T5X leaves nothing out but zeros: what is not there is more likely lost.
    opened = {"driver": DRIVER, "kvstore": kvstore, "fill_missing_data_reads": False}
    if (folder / HEADER).is_file():
        return opened
    told = spec["metadata"]
    if not isinstance(told, dict):
        raise ValueError(f"its metadata is {told!r}")
    metadata = {key: _plain(told.get(key)) for key in METADATA}
    return {**opened, "dtype": spec.get("dtype"), "metadata": metadata, "assume_metadata": True}


def _path_in(spec: Spec) -> str:
    """The folder's name, which before tensorstore 0.1.14 lay beside the key-value store."""
    store = spec["kvstore"]
    if not isinstance(store, dict):
        raise ValueError(f"its key-value store is {store!r}")
    path = spec.get("path") or store.get("path")
    if not isinstance(path, str) or not path:
        raise ValueError(f"its folder is {path!r}")
    return path


def _plain(value: Any) -> Any:
    """Lists as they were before flax made dicts of them, numbers for keys."""
    if isinstance(value, dict) and set(value) == {str(i) for i in range(len(value))}:
        return [value[str(i)] for i in range(len(value))]
    return value
