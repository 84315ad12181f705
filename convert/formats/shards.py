"""Several files that are one checkpoint: the index that lists them, as the Hub names them.

``model.safetensors.index.json`` maps each tensor to ``model-00001-of-00003.safetensors`` and so
on; ``pytorch_model.bin.index.json`` and ``flax_model.msgpack.index.json`` do it alike.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from convert.core.tensors import Header, Joined, Tensors
from convert.formats.content import some_of
from training_recipe.files.json_files import json_text
from transformer_spec import Faults, UserError
from transformer_spec.json_text import read_json_file

INDEX_SUFFIX = ".index.json"
NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\..*)")


def open_shards(path: Path, open_one: Callable[[Path], Tensors]) -> Tensors:
    """All shards as one; the index and the shards must name the same tensors."""
    weight_map = _read_index(path)
    shards = _open_all(path, sorted(set(weight_map.values())), open_one)
    faults = Faults()
    for name, shard in weight_map.items():
        faults.require(name in shards[shard], f"{name!r} is not in {shard} as the index says")
    for shard, tensors in shards.items():
        for name in tensors:
            listed = weight_map.get(name) == shard
            faults.require(listed, f"{name!r} of {shard} is not in the index")
    faults.raise_if_any(f"cannot read {path}")
    return Joined(str(path), list(shards.values()))


def _read_index(path: Path) -> dict[str, str]:
    try:
        weight_map = read_json_file(path)["weight_map"]
        pairs = {str(name): str(shard) for name, shard in weight_map.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no readable index of shards: {error!r}") from error
    return pairs


def _open_all(
    path: Path, names: list[str], open_one: Callable[[Path], Tensors]
) -> dict[str, Tensors]:
    """Every shard opened, headers only; names that lead elsewhere and missing files at once."""
    faults = Faults()
    for name in names:
        if not _is_plain(name):
            faults.add(f"shard {name!r} is no plain file name")
        elif not (path.parent / name).is_file():
            faults.add(f"{path.parent / name} does not exist or is no file")
    left_out = _left_out(names)
    faults.require(not left_out, f"the index lists nothing of {some_of(left_out)}")
    faults.require(bool(names), "it lists no tensor")
    faults.raise_if_any(f"cannot read {path}")
    return {name: open_one(path.parent / name) for name in names}


def _left_out(names: list[str]) -> list[str]:
    """Shards that must exist by the names of others: number 2 of 3 says that there are 1 and 3."""
    found = [match for match in map(NUMBERED.fullmatch, names) if match]
    return [
        name
        for stem, count, suffix in sorted({match.group(1, 3, 4) for match in found})
        for number in range(1, int(count) + 1)
        if (name := f"{stem}-{number:05}-of-{count}{suffix}") not in names
    ]


def _is_plain(name: str) -> bool:
    """A file name alone, on every system: no folder, drive, parent or unprintable character."""
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\:")


def plan_shards(headers: Mapping[str, Header], shard_size: int) -> list[list[str]]:
    """Names in order, each shard filled until the next array would pass ``shard_size`` bytes.

    An array larger than that has a shard to itself.
    """
    shards: list[list[str]] = []
    filled = 0
    for name in sorted(headers):
        size = headers[name].size
        if not shards or (filled and filled + size > shard_size):
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards or [[]]


def shard_name(stem: str, suffix: str, number: int, count: int) -> str:
    """The Hub's name of shard ``number`` (from 1) of ``count``; a single one has no number."""
    return f"{stem}-{number:05}-of-{count:05}{suffix}" if count > 1 else stem + suffix


def index_text(weight_map: Mapping[str, str], total_size: int) -> str:
    """The index file; ``total_size`` counts the bytes of the arrays alone."""
    names = dict(sorted(weight_map.items()))
    return json_text({"metadata": {"total_size": total_size}, "weight_map": names})
