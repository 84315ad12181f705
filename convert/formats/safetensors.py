"""The safetensors container: one file, or shards with an index.

Reading and writing need no library. A file is the same, byte for byte, as the one the
``safetensors`` library writes, except that the metadata's keys are sorted and not in random order.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convert.core.tensors import Subset, Tensors
from convert.formats.arrays import read_array
from convert.formats.atomic import all_or_nothing, written_aside
from convert.formats.placing import place_arrays
from convert.formats.safetensors_header import FileHeader, header_bytes
from convert.formats.shards import INDEX_SUFFIX, index_text, open_shards, plan_shards, shard_name

SHARD_SIZE = 5 * 10**9


class SafetensorsFile(Tensors):
    """One safetensors file, read with positioned reads so that no page of it stays mapped."""

    def __init__(self, path: Path) -> None:
        header = FileHeader(path)
        super().__init__(str(path), header.headers, header.metadata)
        self.path = path
        self.start = header.start
        self.offsets = header.offsets

    def read(self, name: str) -> np.ndarray:
        return read_array(self.path, self.start + self.offsets[name], self[name])


def open_safetensors(path: Path) -> Tensors:
    """The tensors of a .safetensors file, or of the shards that a .index.json lists."""
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        return open_shards(path, SafetensorsFile)
    return SafetensorsFile(path)


def write_safetensors(
    path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None
) -> None:
    """Write one file, few tensors in memory at a time; the same tensors give the same bytes."""
    with written_aside(path) as aside:
        _write_file(aside, tensors, metadata)


def _write_file(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None) -> None:
    header, offsets = header_bytes(tensors, metadata)
    with open(path, "wb") as file:
        file.write(header)
        places = {name: len(header) + offsets[name] for name in tensors}
        place_arrays(file, tensors, places)


def write_sharded(
    folder: Path,
    tensors: Tensors,
    metadata: Mapping[str, str] | None = None,
    shard_size: int = SHARD_SIZE,
    stem: str = "model",
) -> list[Path]:
    """Write shards of at most ``shard_size`` bytes of arrays and their index; the paths written.

    Names go into shards in sorted order; an array above the limit has a shard to itself. What
    fits into one shard becomes ``model.safetensors`` without an index. All files appear or none.
    """
    parts = plan_shards(tensors, shard_size)
    shards = {shard_name(stem, ".safetensors", i + 1, len(parts)): p for i, p in enumerate(parts)}
    index = [f"{stem}.safetensors{INDEX_SUFFIX}"] if len(parts) > 1 else []
    with all_or_nothing(folder, [*shards, *index]) as aside:
        for shard, part in shards.items():
            _write_file(aside / shard, Subset(tensors, part), metadata)
        weight_map = {name: shard for shard, part in shards.items() for name in part}
        for name in index:
            (aside / name).write_text(index_text(weight_map, tensors.size), encoding="utf-8")
    return [folder / name for name in [*shards, *index]]
