"""T5X checkpoints written: one zarr folder for each array, and the tree that names them last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert.core.tensors import Header, Held, Tensors
from convert.formats.array_folders import import_tensorstore
from convert.formats.content import Placed, nest
from convert.formats.msgpack import write_msgpack
from convert.formats.orbax import AGGREGATE
from convert.formats.orbax_writer import told
from convert.formats.t5x import DRIVER
from training_recipe.files.writing import sync_tree

VERSION = 3  # of the tree
COMPRESSOR = {"id": "gzip", "level": 1}
CHUNK = 64 * 2**20  # bytes
STEP = "step"


def write_t5x(folder: Path, tensors: Tensors, step: int) -> None:
    """Write ``checkpoint_STEP`` into a folder, without the state of an optimizer.

    One array at a time is in memory.
    """
    place = folder / f"{AGGREGATE}_{step}"
    place.mkdir()
    try:
        specs = {name: _write(place, f"target.{name}", tensors, name) for name in tensors}
    except (OSError, ValueError) as error:
        raise told(error, place) from None
    optimizer = {"target": nest(specs), "state": {STEP: Placed(STEP)}}
    content = {"version": VERSION, "optimizer": optimizer}
    write_msgpack(place / AGGREGATE, Held({STEP: np.array(step, np.int32)}), content)
    sync_tree(place)


def _write(place: Path, stored: str, tensors: Tensors, name: str) -> Mapping[str, Any]:
    """Write one array; what the tree says of it."""
    header = tensors[name]
    spec = {
        "driver": DRIVER,
        "dtype": header.dtype.name,
        "kvstore": {"driver": "file", "path": f"{stored}/"},
        "metadata": {
            "chunks": _chunks(header),
            "compressor": COMPRESSOR,
            "shape": list(header.shape),
        },
    }
    kvstore = {"driver": "file", "path": f"{place.resolve() / stored}/"}
    opened = import_tensorstore().open(
        {**spec, "kvstore": kvstore, "store_data_equal_to_fill_value": True}, create=True
    )
    opened.result().write(tensors.read_announced(name)).result()
    return spec


def _chunks(header: Header) -> list[int]:
    """All of an array, or as many rows of it as ``CHUNK`` holds."""
    rows, *rest = header.shape or (1,)
    width = max(math.prod(rest) * header.dtype.itemsize, 1)
    return [max(1, min(rows, CHUNK // width)), *rest][: len(header.shape)]
