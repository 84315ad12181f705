"""Several copies of one model's weights in a file, such as moving averages beside the weights.

Copies are told by their names: what follows a beginning is the same, shapes included, and has an
encoder and a decoder in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from convert.core.tensors import Renamed, Subset, Tensors
from transformer_spec import UserError

LONGEST = 3  # parts of a beginning
FEWEST = 4  # tensors of a copy
MOST = 16  # beginnings that are looked at
SHARE = 0.9  # of the smaller one's names that two copies have in common
HALVES = {"enc", "dec"}
OTHERS = "another copy of the weights, such as moving averages of them"


def one_copy(tensors: Tensors, place: str = "") -> tuple[Tensors, list[str]]:
    """The tensors without a second copy beside them, and a note of what was left out.

    Where several beginnings have a copy each, a UserError names them; ``place`` is the key of the
    dict that the tensors are.
    """
    beside, equal = _beginnings(tensors)
    keys = [f"{place}.{name}" if place else name for name in equal or beside]
    if equal:
        raise UserError(
            f"{tensors.label} holds {len(equal)} copies of a model, whose names begin with "
            f"{' and '.join(f'{name}.' for name in equal)}: say which with --key: {', '.join(keys)}"
        )
    if not beside:
        return tensors, []
    kept = [name for name in tensors if not name.startswith(tuple(f"{b}." for b in beside))]
    notes = [
        f"names that begin with '{name}.' are {OTHERS}: left out; --key {key} chooses them"
        for name, key in zip(beside, keys, strict=True)
    ]
    return Subset(tensors, kept), notes


def begun_with(tensors: Tensors, key: str | None) -> Tensors:
    """The tensors whose names begin with a key and a dot, without them; all where none is given."""
    if key is None:
        return tensors
    found = {n.removeprefix(f"{key}."): n for n in tensors if n.startswith(f"{key}.")}
    if not found:
        some = ", ".join(dict.fromkeys(name.partition(".")[0] for name in tensors))
        raise UserError(f"no name in {tensors.label} begins with '{key}.'; they begin with: {some}")
    return Renamed(tensors, found)


def is_copy(one: Collection[str], other: Collection[str]) -> bool:
    """Whether two sets of names are mostly the same."""
    smaller = min(len(one), len(other))
    return smaller >= FEWEST and len(set(one) & set(other)) >= SHARE * smaller


def _beginnings(tensors: Tensors) -> tuple[list[str], list[str]]:
    """Beginnings of copies of what has no beginning, and those of copies beside each other."""
    models = [pair for pair in _groups(tensors).items() if _is_model(pair[1])]
    groups = dict(models[:MOST])
    beside, equal = list[str](), list[str]()
    for name, group in groups.items():
        if any(name.startswith(f"{other}.") for other in (*beside, *equal)):
            continue
        rest = {n: tensors[n].shape for n in tensors if not n.startswith(f"{name}.")}
        if _is_same(group, rest):
            beside.append(name)
        elif any(_is_same(group, other) for at, other in groups.items() if _are_apart(name, at)):
            equal.append(name)
    return beside, equal


def _groups(tensors: Tensors) -> dict[str, dict[str, tuple[int, ...]]]:
    """Each beginning of names -> what follows it, with shapes; short beginnings first."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, header in tensors.items():
        for first, rest in _splits(name):
            found.setdefault(first, {})[rest] = header.shape
    return dict(sorted(found.items(), key=lambda pair: pair[0].count(".")))


def _splits(name: str) -> Iterator[tuple[str, str]]:
    parts = name.split(".", LONGEST)
    for count in range(1, len(parts)):
        yield ".".join(parts[:count]), ".".join(parts[count:])


def _is_model(names: Collection[str]) -> bool:
    parts = {part[:3].lower() for name in names for part in name.split(".")}
    return len(names) >= FEWEST and parts >= HALVES


def _is_same(one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> bool:
    smaller, larger = sorted((one, other), key=len)
    same = sum(larger.get(name) == shape for name, shape in smaller.items())
    return len(smaller) >= FEWEST and same >= SHARE * len(smaller)


def _are_apart(one: str, other: str) -> bool:
    return not f"{one}.".startswith(f"{other}.") and not f"{other}.".startswith(f"{one}.")
