"""The Orbax container: a folder of arrays, nested dicts as dotted names.

Reading needs only ``tensorstore``. Newer versions list the arrays in ``_METADATA``; before, a
msgpack file ``checkpoint`` had the whole tree, with small arrays in it and the names of the others,
and before that the folders had to tell. T5X, from before Orbax, says in that file how tensorstore
wrote each of the others.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from convert.core.tensors import Joined, Tensors
from convert.formats.array_folders import ArrayFolders, Spec, place, reason
from convert.formats.kinds import container_of
from convert.formats.msgpack import arrays_of, open_msgpack_file
from convert.formats.t5x import open_named, specs_in
from transformer_spec import UserError

METADATA = "_METADATA"
AGGREGATE = "checkpoint"
PLACEHOLDER = "PLACEHOLDER://"
DATABASE = "manifest.ocdbt"
ARRAY_FILES = (".zarray", "zarr.json")
# What versions leave that write METADATA last: without that, a folder is not whole.
NEWER = ("_CHECKPOINT_METADATA", "_sharding", "array_metadatas", DATABASE)
# What Orbax writes of values that are no arrays: of these there is a name and nothing else.
EMPTY = ("None", "Dict", "List", "Tuple", "NamedTuple", "string")


def is_orbax(path: Path) -> bool:
    """Whether a folder is one tree of arrays, of whatever version."""
    if (path / METADATA).is_file() or (path / DATABASE).is_file():
        return True
    with contextlib.suppress(UserError):  # another library's file of that name
        if (path / AGGREGATE).is_file() and container_of(path / AGGREGATE) == "msgpack":
            return True
    return path.is_dir() and bool(_array_folders(path))


@dataclass(frozen=True)
class Stored:
    """Which arrays lie in a folder, and how.

    ``whole`` says that arrays of nothing but zeros are stored too, so that nothing may be missing.
    """

    names: Collection[str]
    driver: str
    database: bool
    whole: bool = False


def open_orbax(path: Path) -> Tensors:
    """The arrays of an Orbax folder, named by their dict keys joined with dots."""
    path = Path(path)
    if (path / AGGREGATE).is_file():
        return _with_aggregate(path)
    return ArrayFolders(path, _specs(path, _stored(path)))


def open_tree(path: Path) -> Tensors:
    """The arrays of a msgpack file, and those in folders beside it that it says how to open."""
    file = open_msgpack_file(path)
    inside, specs = arrays_of(file), specs_in(file.content)
    return open_named(path.parent, specs, inside) if specs else inside


def _with_aggregate(path: Path) -> Tensors:
    """What the file of the whole tree holds itself, and what it names."""
    file = open_msgpack_file(path / AGGREGATE)
    if specs_in(file.content):
        return open_tree(path / AGGREGATE)
    inside = arrays_of(file)
    stored = _stored(path) if (path / METADATA).is_file() else _named_in(path, file.content)
    stored = replace(stored, names=[name for name in stored.names if name not in inside])
    if not stored.names:
        return inside
    return Joined(str(path), [ArrayFolders(path, _specs(path, stored)), inside])


def _named_in(path: Path, tree: Any) -> Stored:
    """The arrays that a tree of an older version has the names of."""
    texts = [text for text in _texts(tree) if text.startswith(PLACEHOLDER)]
    names = sorted({text.removeprefix(PLACEHOLDER) for text in texts})
    return Stored(names, _driver_of_folders(path), (path / DATABASE).is_file())


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if type(tree) is list else ():
        yield from _texts(part)


def _stored(path: Path) -> Stored:
    if (path / METADATA).is_file():
        return _from_metadata(path)
    folders = _array_folders(path)
    newer = [name for name in NEWER if (path / name).exists()]
    if not folders or newer:
        raise UserError(
            f"{path} has no {METADATA}: it is half-written or no Orbax checkpoint; "
            "give the folder that holds this file"
        )
    return Stored(folders, _driver_of_folders(path), False)


def _from_metadata(path: Path) -> Stored:
    try:
        content = json.loads((path / METADATA).read_text(encoding="utf-8"))
        entries = list(content["tree_metadata"].values())
        names = [_name(entry) for entry in entries if _is_array(entry)]
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path / METADATA} is damaged: {error!r}") from error
    name, count = next(iter(Counter(names).most_common(1)), ("", 0))
    if count > 1:
        raise UserError(f"{path} is damaged or half-written: two arrays are named {name!r}")
    database = content.get("use_ocdbt")
    database = (path / DATABASE).is_file() if database is None else bool(database)
    whole = content.get("store_array_data_equal_to_fill_value") is True
    return Stored(names, "zarr3" if content.get("use_zarr3") else "zarr", database, whole)


def _array_folders(path: Path) -> list[str]:
    """The folders in a folder that hold one array each."""
    found = [file.parent.name for name in ARRAY_FILES for file in path.glob(f"*/{name}")]
    return sorted(found)


def _driver_of_folders(path: Path) -> str:
    return "zarr3" if next(path.glob("*/zarr.json"), None) else "zarr"


def _specs(path: Path, stored: Stored) -> dict[str, Spec]:
    """How tensorstore opens every array; a UserError where a name leads elsewhere."""
    root, specs = path.resolve(), dict[str, Spec]()
    for name in stored.names:
        try:
            kvstore = _kvstore(root, name, stored.database)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged or half-written: {reason(error)}") from error
        specs[name] = {"driver": stored.driver, "kvstore": kvstore}
        if stored.whole:
            specs[name]["fill_missing_data_reads"] = False  # lost numbers are no zeros
    return specs


def _name(entry: dict[str, Any]) -> str:
    return ".".join(str(key["key"]) for key in entry["key_metadata"])


def _is_array(entry: dict[str, Any]) -> bool:
    """Whether there is an array; a part of an optimizer's state may hold nothing."""
    value = entry.get("value_metadata", {})
    return value.get("value_type") not in EMPTY and not value.get("skip_deserialize")


def _kvstore(root: Path, name: str, database: bool) -> Spec:
    """Where tensorstore finds one array: inside the OCDBT database, or in a folder of its own."""
    if not database:
        return place(root, name)
    base = {"driver": "file", "path": f"{root}/"}
    return {"driver": "ocdbt", "base": base, "path": f"{name}/"}
