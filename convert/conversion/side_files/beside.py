"""What becomes of the files beside the weights: each is carried, rewritten or left out.

In a folder of ours the tokenizer's own files lie in ``vocabulary/`` beside our descriptions of
them, and all others of an imported folder in ``original/``, each byte for byte. They leave under
their own names where what is written is for the library that they came from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from convert.checkpoints.folders.config_files import foreign_settings
from convert.checkpoints.folders.location import FILE, Located
from convert.conversion.origin import ORIGIN
from convert.conversion.sources.source import Import
from convert.conversion.target import Target
from convert.families.registry import FAMILIES
from convert.files.account import CARRIED, LEFT_OUT, REWRITTEN, Entry
from convert.files.kinds import CONFIG, RECORDS, is_document, why_left
from convert.files.listing import Found, Listing
from convert.tokenizers import tokenizer_files

VOCABULARY, ORIGINAL, SEARCH, SETTINGS = "vocabulary", "original", "search.json", "settings.json"
WHISPER = "whisper"
DESCRIPTIONS = ("source.json", "target.json")
PREPROCESSOR = "preprocessor_config.json"
OURS, SAME, OTHER, EXPORTED = "ours", "same", "other", "exported"


@dataclass(frozen=True)
class Beside:
    """The files of a source's folder, and those of them that are its tokenizer's.

    ``folder`` is None where weights lie alone; ``ours`` says whose folder it is; ``not_needed``
    are files of a repository on the Hub that were not got.
    """

    folder: Path | None
    ours: bool
    found: list[Found]
    tokenizer: frozenset[str]
    not_needed: Sequence[str] = ()

    @classmethod
    def of(cls, located: Located, hashed: bool = True) -> Beside:
        """What lies there now, fingerprinted where it may be carried and that is wanted."""
        if located.home is not None:
            return cls.of_ours(located.home, hashed)
        folder = folder_of(located)
        if folder is None:
            return cls(None, False, [], frozenset())
        tokenizer = frozenset(tokenizer_files(folder))

        def wanted(name: str) -> bool:
            return name in tokenizer or why_left(name) is None

        left = located.hub.not_needed if located.hub else ()
        found = Listing(folder, wanted, hashed=hashed).all()
        return cls(folder, False, found, tokenizer, left)

    @classmethod
    def of_ours(cls, home: Path, hashed: bool = True) -> Beside:
        """The same of a folder of ours, where that is known."""
        found = Listing(home, _may_be_ours, (VOCABULARY, ORIGINAL), hashed).all()
        return cls(home, True, found, frozenset())


def folder_of(located: Located) -> Path | None:
    """The folder of another library that weights lie in; None where a file lies alone."""
    if located.kind != FILE:
        return located.weights
    alone = foreign_settings(located.weights) is None
    return None if alone else located.weights.parent


def _may_be_ours(name: str) -> bool:
    return "/" in name or name in (CONFIG, SETTINGS, SEARCH, ORIGIN)


@dataclass(frozen=True)
class Way:
    """From which library's folder to whose: what is decided of every file at once.

    ``kind`` is ours (a twin), same (the library that the files are of), other (another library),
    or exported (to CTranslate2); ``read`` are names of files whose tensors are read; ``speech`` is
    said of models that take sound.
    """

    kind: str
    library: str | None
    target: str
    read: frozenset[str]
    tokenizer: frozenset[str] = frozenset()
    all_read: bool = False
    speech: bool = False

    @classmethod
    def of(cls, source: Import, target: Target, beside: Beside) -> Way:
        library = library_of(source)
        if target.model is not None:
            kind = EXPORTED
        elif target.family is None:
            kind = OURS
        else:
            kind = SAME if target.family.library == library else OTHER
        names = read_in(source, beside.folder)
        read = frozenset(names - {"."})
        speech = source.config.feature_dim > 0
        return cls(kind, library, target.name, read, beside.tokenizer, "." in names, speech)


def library_of(source: Import) -> str | None:
    """Whose files lie beside the weights, or came with them; None where they are our own."""
    if source.family is not None:
        return source.family.library
    if source.origin is None:
        return None
    family = FAMILIES.get(source.origin.family)
    return family.library if family else source.origin.family


def read_in(source: Import, folder: Path | None) -> set[str]:
    """The files that tensors are read from, by their names in a folder; "." is all of it."""
    if folder is None:
        return set()
    home = Path(os.path.realpath(folder))
    names = set[str]()
    for path in source.content.files:
        place = Path(os.path.realpath(path.parent)) / path.name
        if place == home or home in place.parents:
            names.add(place.relative_to(home).as_posix())
    return names


def entries_of(beside: Beside, way: Way) -> list[Entry]:
    """What becomes of every file; those whose tensors are read are rewritten."""
    listed = {found.name for found in beside.found}
    entries = [
        Entry(Found(name, Path(name)), LEFT_OUT, reason="not needed, and not got from the Hub")
        for name in beside.not_needed
    ]
    inner = [Found(name, Path(name)) for name in sorted(way.read - listed)]
    for found in [*beside.found, *inner]:
        if found.name in way.read or (way.all_read and not found.fault):
            entries.append(Entry(found, REWRITTEN, reason="its tensors are listed by name"))
        elif found.fault:
            entries.append(Entry(found, LEFT_OUT, reason=found.fault))
        else:
            entries.append(_of_ours(found, way) if beside.ours else _of_library(found, way))
    return _without_collisions(entries)


def _without_collisions(entries: list[Entry]) -> list[Entry]:
    """No two files go to one place: what is carried goes before what is rewritten."""
    taken, kept = set[str](), dict[int, Entry]()
    order = sorted(range(len(entries)), key=lambda n: entries[n].what != CARRIED)
    for number in order:
        entry = entries[number]
        if entry.to in taken:
            reason = f"its place, {entry.to}, is taken by another file"
            entry = replace(entry, what=LEFT_OUT, to=None, reason=reason)
        taken |= {entry.to} if entry.to else set()
        kept[number] = entry
    return [kept[number] for number in range(len(entries))]


def _of_library(found: Found, way: Way) -> Entry:
    """A file of another library's folder."""
    name, is_tokenizer = found.name, found.name in way.tokenizer
    if found.inside is not None:
        return Entry(found, LEFT_OUT, reason=f"a folder of {found.number_inside}")
    why = None if is_tokenizer else why_left(name)
    if why is not None:
        return Entry(found, LEFT_OUT, reason=why)
    if way.library is None and not is_tokenizer and not is_document(name):
        return Entry(found, LEFT_OUT, reason="of no known library's folder")
    if way.kind == OURS:
        place = VOCABULARY if is_tokenizer and name not in DESCRIPTIONS else ORIGINAL
        return Entry(found, CARRIED, f"{place}/{name}", _also(name))
    return _outwards(found, name, is_tokenizer, way)


def _also(name: str) -> str:
    """What is written besides of a file that is carried."""
    reasons = {CONFIG: "config.json says the same in our words"}
    return reasons.get(name, "")


def _outwards(found: Found, name: str, is_tokenizer: bool, way: Way) -> Entry:
    """A library's file by its own ``name`` on the way to that library or to another one."""
    if way.kind == SAME:
        return Entry(found, CARRIED, name)
    if is_document(name) or (is_tokenizer and _same_tokenizer(way)):
        return Entry(found, CARRIED, name)
    if way.kind == EXPORTED and way.speech and (is_tokenizer or name == PREPROCESSOR):
        return Entry(found, CARRIED, name)
    if way.kind == EXPORTED and is_tokenizer and name not in DESCRIPTIONS:
        return Entry(found, CARRIED, f"{VOCABULARY}/{name}")
    if name == CONFIG:
        return Entry(found, REWRITTEN, CONFIG, f"in the words of {way.target}")
    return Entry(found, LEFT_OUT, reason=f"a file of {way.library}'s, and {way.target} is written")


def _same_tokenizer(way: Way) -> bool:
    """Whether another library's folder has a tokenizer of the same kind: those of speech have."""
    family = FAMILIES.get(way.target)
    both = (way.library or "", family.library if family is not None else "")
    return all(library.partition("-")[0] == WHISPER for library in both)


def _of_ours(found: Found, way: Way) -> Entry:
    """A file of a folder of ours: of a run, or of what a conversion wrote."""
    place, _, name = found.name.partition("/")
    if found.inside is not None:
        return Entry(found, LEFT_OUT, reason=f"a folder of {found.number_inside}")
    exports_speech = way.kind == EXPORTED and way.speech
    if place == VOCABULARY and name in DESCRIPTIONS and exports_speech:
        return Entry(found, LEFT_OUT, reason="a description of the tokenizer in our words")
    if name and exports_speech and name != CONFIG:
        return _outwards(found, name, place == VOCABULARY, way)
    if name and way.kind in (OURS, EXPORTED) and place == VOCABULARY:
        return Entry(found, CARRIED, found.name)
    if name and way.kind == OURS:
        return Entry(found, CARRIED, found.name)
    if name == CONFIG and way.kind != SAME:
        return Entry(found, LEFT_OUT, reason="the settings are written from config.json")
    if name and way.library is not None and not (place == VOCABULARY and name in DESCRIPTIONS):
        return _outwards(found, name, place == VOCABULARY, way)
    if name:
        return Entry(found, LEFT_OUT, reason=f"our description, which {way.target} does not read")
    return _own_record(found, way)


def _own_record(found: Found, way: Way) -> Entry:
    """What we wrote beside the weights."""
    name = found.name
    if name == CONFIG:
        words = "our" if way.kind == OURS else f"{way.target}'s"
        return Entry(found, REWRITTEN, name, f"in {words} words")
    exported = way.kind == EXPORTED and not way.speech
    if name in (SETTINGS, SEARCH) and (way.kind == OURS or exported):
        return Entry(found, CARRIED, name)
    if name == ORIGIN and way.kind == OURS:
        return Entry(found, CARRIED, name)
    if name in (SETTINGS, SEARCH, ORIGIN):
        return Entry(found, LEFT_OUT, reason=f"our record, which {way.target} does not read")
    if name in RECORDS:
        return Entry(found, LEFT_OUT, reason=str(why_left(name)))
    return Entry(found, LEFT_OUT, reason="of training, or not known: no part of the model")


def without(entries: list[Entry], names: Mapping[str, str]) -> list[Entry]:
    """Entries with some of those that were to be carried left out, each for its reason."""
    return [
        replace(entry, what=LEFT_OUT, to=None, reason=names[entry.found.name])
        if entry.what == CARRIED and entry.found.name in names
        else entry
        for entry in entries
    ]
