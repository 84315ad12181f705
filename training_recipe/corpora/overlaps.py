"""Which of the sentences to judge by are in the training data, or in both parts to judge by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from training_recipe.corpora.text_files import Pair

REMEMBERED = "their scores say what is remembered, and not what becomes of unseen sources"
CHOSEN = "the checkpoint is chosen by these too, which makes their scores a little too good"


def overlaps(
    pairs: Mapping[str, list[Pair]], held_out: Collection[str], what: Callable[[str], str] = str
) -> tuple[list[str], frozenset[str]]:
    """Notes on what is in two parts, and the sources to test by that are in the training data.

    As where pairs are held out, sources are one of which ``what`` is the same; of the ``held_out``
    parts none is in another.
    """
    notes, seen = list[str](), frozenset[str]()
    for part in ("valid", "test"):
        known = {} if part in held_out else shared(pairs[part], pairs["train"], what)
        if known:
            seen = frozenset(known) if part == "test" else seen
            notes.append(f"{_counted(part, pairs[part], known, 'training')}: {REMEMBERED}")
    both = {} if {"valid", "test"} <= set(held_out) else shared(pairs["test"], pairs["valid"], what)
    if both:
        notes.append(f"{_counted('test', pairs['test'], both, 'validation')}: {CHOSEN}")
    return notes, seen


def shared(
    pairs: list[Pair], data: list[Pair], what: Callable[[str], str] = str
) -> dict[str, set[str]]:
    """The sources of ``pairs`` that ``data`` has, each with its targets there."""
    same = {source: what(source) for source, _ in pairs}
    targets: dict[str, set[str]] = {key: set() for key in same.values()}
    for source, target in data:
        there = targets.get(what(source))
        if there is not None:
            there.add(target)
    return {source: targets[key] for source, key in same.items() if targets[key]}


def _counted(part: str, pairs: list[Pair], known: dict[str, set[str]], where: str) -> str:
    there = [pair for pair in pairs if pair[0] in known]
    whole = sum(target in known[source] for source, target in there)
    counts = f"{len(there):,} of {len(pairs):,} pairs have their source in the {where} data"
    return f"note: {part}: {counts}, {whole:,} of them the whole pair"
