"""Orbax folders written some arrays at a time, in the files that StandardCheckpointer leaves.

Every array is one zarr chunk in an OCDBT database; ``_METADATA`` lists them. Needs only
``tensorstore``, and no other process than this one.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.tensors import Header, Tensors
from convert.formats.array_folders import import_tensorstore, reason
from convert.formats.content import nest
from convert.formats.orbax import METADATA
from training_recipe.files.writing import remove, sync, sync_tree
from transformer_spec import Faults, UserError

SYSTEM_ERROR = re.compile(r"os(?:_error_code='| error )(\d+)")  # in tensorstore's words
UNFINISHED = ".orbax-checkpoint-tmp"
PROCESS = "ocdbt.process_0"  # its folder has the arrays, and the folder above refers to it
DATABASE = {"max_inline_value_bytes": 1024, "max_decoded_node_bytes": 100_000_000}
FILE_SIZE = 2**31
COMPRESSOR = {"id": "zstd", "level": 1}
TOGETHER = 128 * 2**20  # bytes of arrays that are compressed at once
HANDLER = "orbax.checkpoint._src.handlers.standard_checkpoint_handler.StandardCheckpointHandler"
INDEX, NAME = 1, 2  # what kinds of keys a tree has


def write_orbax(path: Path, tensors: Tensors) -> None:
    """Write a folder as StandardCheckpointer does and force it onto the disk.

    This thread reads every array once; few are in memory at a time. Names that do not nest and
    arrays without elements are a UserError. Nothing is left where something goes wrong.
    """
    tensorstore = import_tensorstore()
    if path.exists():
        raise UserError(f"{path} exists already")
    tree = with_optax_state(nest(dict(tensors)))
    _check_not_empty(path, tensors)
    aside = path.with_name(path.name + UNFINISHED)
    try:
        remove(aside)
        _write_arrays(tensorstore, aside, tensors)
        _write_metadata(aside, path, tree)
        sync_tree(aside)
        os.replace(aside, path)
        sync(path.parent)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise told(error, path) from None
    finally:
        remove(aside)


def _check_not_empty(path: Path, tensors: Tensors) -> None:
    faults = Faults()
    for name, header in tensors.items():
        faults.require(header.size > 0, f"{name!r}: {header}")
    faults.raise_if_any(f"cannot write {path}: Orbax holds no arrays of zero size")


def told(error: Exception, path: Path) -> Exception:
    """An error of the library, as the system's where it comes from there."""
    refused = SYSTEM_ERROR.search(str(error))
    if refused:
        number = int(refused[1])
        return OSError(number, os.strerror(number), str(path))
    if isinstance(error, OSError):
        return error
    return UserError(f"cannot write {path}: {reason(error)}")


def _write_arrays(tensorstore: Any, folder: Path, tensors: Tensors) -> None:
    """Write the arrays to the database of one process, and the one of all that refers to it.

    Some are compressed and written while the next are read, where there is room for both.
    """
    (folder / PROCESS).mkdir(parents=True)
    place = _database(folder / PROCESS)
    context = tensorstore.Context()
    running, size = None, 0
    for batch in _batches(tensors):
        new = sum(tensors[name].size for name in batch)
        if running is not None and size + new > 2 * TOGETHER:
            running = running.result()
        arrays = {name: tensors.read_announced(name) for name in batch}
        if running is not None:
            running.result()
        running, size = _commit(tensorstore, context, place, arrays), new
        del arrays
    if running is not None:
        running.result()
    _refer(tensorstore, context, place, _database(folder))


def _database(folder: Path) -> dict[str, Any]:
    locking = {"mode": "non_atomic"}  # nobody else writes there
    base = {"driver": "file", "path": f"{folder.resolve()}/", "file_io_locking": locking}
    return {
        "driver": "ocdbt",
        "base": base,
        "config": DATABASE,
        "target_data_file_size": FILE_SIZE,
    }


def _batches(tensors: Tensors) -> Iterator[list[str]]:
    """Names in their order, together until they are ``TOGETHER`` bytes; a larger one alone."""
    batch: list[str] = []
    size = 0
    for name, header in tensors.items():
        if batch and size + header.size > TOGETHER:
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += header.size
    if batch:
        yield batch


def _commit(
    tensorstore: Any, context: Any, place: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> Any:
    """Begin to write arrays, at once or not at all; what is returned waits for them."""
    transaction = tensorstore.Transaction(atomic=False)
    pending = []
    for name, array in arrays.items():
        spec = {
            "driver": "zarr",
            "kvstore": {**place, "path": name},
            "metadata": {
                "shape": array.shape,
                "chunks": array.shape,
                "compressor": COMPRESSOR,
            },
            "dtype": array.dtype.name,
            "store_data_equal_to_fill_value": True,
        }
        opened = tensorstore.open(spec, create=True, context=context, transaction=transaction)
        pending.append((opened, array))
    stores = [(opened.result(), array) for opened, array in pending]
    for store, array in stores:
        store.write(array, can_reference_source_data_indefinitely=True).result()
    return transaction.commit_async()


def _refer(
    tensorstore: Any, context: Any, inner: Mapping[str, Any], outer: Mapping[str, Any]
) -> None:
    """Make one database hold all that another has, by reference."""
    stores = [tensorstore.KvStore.open(dict(place), context=context) for place in (inner, outer)]
    source, target = (store.result() for store in stores)
    transaction = tensorstore.Transaction(atomic=True)
    source.experimental_copy_range_to(target.with_transaction(transaction)).result()
    transaction.commit_async().result()


def _write_metadata(folder: Path, path: Path, tree: dict[str, Any]) -> None:
    """The files that say what the database holds; the list of arrays comes last."""
    now = time.time_ns()
    written = {"item_handlers": HANDLER, "metrics": {}, "performance_metrics": {}}
    written |= {"init_timestamp_nsecs": now, "commit_timestamp_nsecs": now, "custom_metadata": {}}
    (folder / "_CHECKPOINT_METADATA").write_text(json.dumps(written), encoding="utf-8")
    success = f"Checkpoint commit was successful to {path.resolve()}"
    (folder / "commit_success.txt").write_text(success, encoding="utf-8")
    entries = dict(_entries(tree, (), []))
    content = {"tree_metadata": entries, "use_ocdbt": True, "use_zarr3": False}
    content |= {"store_array_data_equal_to_fill_value": True, "custom_metadata": None}
    (folder / METADATA).write_text(json.dumps(content), encoding="utf-8")


def _entries(
    node: Any, keys: tuple[str, ...], kinds: list[int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the list says of every leaf of a tree, in the order of its keys."""
    if node is None or isinstance(node, Header):
        key = [{"key": k, "key_type": kind} for k, kind in zip(keys, kinds, strict=True)]
        value = {"value_type": "None", "skip_deserialize": True}
        if node is not None:
            value = {"value_type": "np.ndarray", "skip_deserialize": False}
        yield str(keys), {"key_metadata": key, "value_metadata": value}
        return
    is_dict = isinstance(node, dict)
    parts = sorted(node.items()) if is_dict else [(str(i), n) for i, n in enumerate(node)]
    for key, part in parts:
        yield from _entries(part, (*keys, key), [*kinds, NAME if is_dict else INDEX])


def with_optax_state(tree: dict[str, Any]) -> dict[str, Any]:
    """``opt_state`` as what optax.adamw has: Adam's state, and two parts that hold nothing."""
    if tree.get("opt_state", {}).keys() != {"0"}:
        return tree
    return tree | {"opt_state": (tree["opt_state"]["0"], None, None)}
