"""Several files that are one checkpoint: the index that lists them, as the Hub names them.

``model.safetensors.index.json`` maps each tensor to ``model-00001-of-00003.safetensors`` and so
on; ``pytorch_model.bin.index.json`` and ``flax_model.msgpack.index.json`` do it alike.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from convert.core.tensors import Header, Joined, Subset, Tensors
from convert.formats.content import some_of
from convert.formats.other_files import first_bytes
from training_recipe.files.json_files import json_text
from training_recipe.files.writing import all_or_nothing
from transformer_spec import Faults, UserError
from transformer_spec.errors import broken_link
from transformer_spec.json_text import read_json_file

INDEX_SUFFIX = ".index.json"
MAX_SHARDS = 10_000
NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\..*)")


class Shards(Joined):
    """Several files seen as one; ``notes`` say which of the folder's are not among them."""

    def __init__(self, label: str, parts: list[Tensors], notes: list[str]) -> None:
        super().__init__(label, parts)
        self.notes = notes


def open_shards(
    path: Path, open_one: Callable[[Path], Tensors], named: Callable[[str], str] = str
) -> Shards:
    """All shards that the index lists, as one; they must name the same tensors.

    ``named`` turns a name of the index into that of a shard.
    """
    weight_map = {named(name): shard for name, shard in _read_index(path).items()}
    shards = _open_all(path, sorted(set(weight_map.values())), open_one)
    faults = Faults()
    for name, shard in weight_map.items():
        faults.require(name in shards[shard], f"{name!r} is not in {shard} as the index says")
    for shard, tensors in shards.items():
        for name in tensors:
            listed = weight_map.get(name) == shard
            faults.require(listed, f"{name!r} of {shard} is not in the index")
    faults.raise_if_any(f"cannot read {path}")
    return Shards(str(path), list(shards.values()), _unlisted(path, list(shards)))


def shards_in(index: Path) -> list[Path]:
    """The files that an index lists; none where it is not readable."""
    try:
        names = set(_read_index(index).values())
    except UserError:
        return []
    return [index.parent / name for name in sorted(names) if _is_plain(name)]


def notes_of(tensors: Tensors) -> list[str]:
    """What is to be said of the files of some tensors: that there are others beside them."""
    return tensors.notes if isinstance(tensors, Shards) else []


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
            lost = broken_link(path.parent / name)
            faults.add(lost or f"{path.parent / name} does not exist or is no file")
    faults.require(bool(names), "it lists no tensor")
    faults.raise_if_any(f"cannot read {path}")
    for name in names:
        try:
            first_bytes(path.parent / name)
        except UserError as error:
            faults.add(str(error), "of its files are no weights either")
    faults.raise_if_any(f"cannot read {path}")
    return {name: open_one(path.parent / name) for name in names}


def _unlisted(path: Path, listed: list[str]) -> list[str]:
    """A note on shards that must exist by the names of others, or do, and are not in the index.

    They may be empty, or left from another time; that no weight is missing is proved elsewhere.
    """
    found = [match for match in map(NUMBERED.fullmatch, listed) if match]
    first = 0 if any(match[2] == "00000" for match in found) else 1
    implied = {
        f"{stem}-{first + number:05}-of-{count}{suffix}"
        for stem, count, suffix in {match.group(1, 3, 4) for match in found}
        for number in range(min(int(count), MAX_SHARDS))
    }
    stems = {match.group(1, 4) for match in found}
    beside = [NUMBERED.fullmatch(file.name) for file in path.parent.iterdir()]
    present = {match.string for match in beside if match and match.group(1, 4) in stems}
    names = sorted((implied | present) - set(listed))
    if not names:
        return []
    return [f"not read, as {path.name} lists nothing of it: {some_of(names)}"]


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


def write_shards(
    folder: Path,
    tensors: Tensors,
    shard_size: int,
    stem: str,
    suffix: str,
    write_one: Callable[[Path, Tensors], None],
    named: Callable[[str], str] = str,
) -> list[Path]:
    """Write shards of at most ``shard_size`` bytes of arrays and their index; the paths written.

    Names go into shards in sorted order; an array above the limit has a shard to itself. What
    fits into one shard becomes one file without an index. All files appear or none. ``named``
    turns a name into that of the index.
    """
    parts = plan_shards(tensors, shard_size)
    shards = {shard_name(stem, suffix, i + 1, len(parts)): p for i, p in enumerate(parts)}
    index = [f"{stem}{suffix}{INDEX_SUFFIX}"] if len(parts) > 1 else []
    with all_or_nothing(folder, [*shards, *index]) as aside:
        for shard, part in shards.items():
            write_one(aside / shard, Subset(tensors, part))
        weight_map = {named(name): shard for shard, part in shards.items() for name in part}
        for name in index:
            (aside / name).write_text(index_text(weight_map, tensors.size), encoding="utf-8")
    return [folder / name for name in [*shards, *index]]
