"""The files of a new folder: those that are carried, and those that are made of others.

What of a tokenizer or a search cannot be read never stops the weights: it is carried as it is, and
a note says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from convert.checkpoints.folders.config_files import settings_in
from convert.conversion.origin import ORIGIN
from convert.conversion.side_files.beside import (
    DESCRIPTIONS,
    EXPORTED,
    ORIGINAL,
    OURS,
    SAME,
    SEARCH,
    SETTINGS,
    VOCABULARY,
    WHISPER,
    Beside,
    Way,
    entries_of,
    without,
)
from convert.conversion.side_files.imported import (
    imported_search,
    imported_vocabularies,
    usual_generation,
)
from convert.conversion.side_files.speech_export import MENDED, mended, with_exported
from convert.conversion.side_files.speech_files import BY_RULE, speech_files, warnings
from convert.conversion.sources.source import Import
from convert.conversion.target import Target
from convert.families.registry import LIBRARIES
from convert.families.t5x.family import T5X
from convert.files.account import CARRIED, REWRITTEN, Entry, FilesPlan, told_of_faults
from convert.files.generation import published, rewritten
from convert.files.kinds import CONFIG, GENERATION
from convert.files.marian_tokenizer import Writers, marian_tokenizer, why_not
from convert.tokenizers import usual_files
from training_recipe.files.json_files import read_json
from training_recipe.searching.published import load_search, save_search
from training_recipe.searching.search import Search
from training_recipe.text.byte_vocabulary import ByteVocabulary
from training_recipe.text.model_vocabularies import load_vocabularies
from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import TransformerConfig, UserError

USUAL = Search(beam=5)  # what our own models are translated with
MARIAN = "marian"
NONE = "the new folder has no tokenizer, so its model reads ids"
NO_TOKENIZER = "the new folder has no tokenizer, so its model writes ids"


@dataclass(frozen=True)
class Making:
    """All that decides which files a new folder gets."""

    source: Import
    target: Target
    settings: dict[str, Any] | None
    beside: Beside
    way: Way

    @property
    def config(self) -> TransformerConfig:
        return self.source.config

    @property
    def home(self) -> Path | None:
        return self.source.located.home

    def place_of(self, name: str) -> Path | None:
        """Where a file of the library's lies, by its own name, in whosever folder."""
        wanted = f"{ORIGINAL}/{name}" if self.beside.ours else name
        found = (f.path for f in self.beside.found if f.name == wanted and not f.fault)
        return next(found, None)

    def has(self, name: str) -> bool:
        """Whether there is a file of a name in the source's folder."""
        return any(found.name == name for found in self.beside.found)


def plan_files(
    source: Import, target: Target, settings: dict[str, Any] | None, beside: Beside
) -> FilesPlan:
    """Every file of a source's folder, and what a target's gets besides; nothing is an error."""
    way = Way.of(source, target, beside)
    making = Making(source, target, settings, beside, way)
    plan = FilesPlan(entries_of(beside, way))
    plan = replace(plan, notes=[*told_of_faults(plan.entries), *_contradictions(making)])
    if making.config.feature_dim:
        plan = mended(plan)
    if making.config.feature_dim and way.kind == EXPORTED:
        return with_exported(source, plan)
    if way.kind in (OURS, EXPORTED):
        return _checked(making, plan) if beside.ours else _imported(making, plan)
    if way.kind == SAME:
        plan = _restored(making, plan) if beside.ours else _same_config(making, plan)
    else:
        plan = _published(making, plan)
    return _with_speech(making, plan)


def _contradictions(making: Making) -> list[str]:
    """What files of a library's folder say otherwise than a model of speech is."""
    wanted = making.config.feature_dim and not making.beside.ours
    return warnings(making.config, making.place_of) if wanted else []


def _with_speech(making: Making, plan: FilesPlan) -> FilesPlan:
    """A model of speech gets what its library reads beside it, where that is not carried."""
    family, origin = making.target.family, making.source.origin
    if family is None or family.library != WHISPER:
        return plan
    there = (e for e in plan.entries if e.what == CARRIED or e.reason == MENDED)
    carried = {e.to: e.found.path for e in there}
    found = speech_files(making.config, carried.get, origin.settings if origin else None)
    made = {place: write for place, write in found.made.items() if place not in plan.made}
    return replace(
        plan,
        made={**plan.made, **made},
        made_from={**dict.fromkeys(made, BY_RULE), **plan.made_from},
        notes=[*plan.notes, *found.notes],
    )


def _checked(making: Making, plan: FilesPlan) -> FilesPlan:
    home = making.home
    assert home is not None
    kept, told = _sound(home, making.config, plan.entries, making.way.library is not None)
    if not (home / VOCABULARY).exists() and not making.config.feature_dim:
        told.append(f"the new folder reads ids, not text: {home} has no {VOCABULARY}/")
    return replace(plan, entries=kept, notes=[*plan.notes, *told])


def _sound(
    home: Path, config: TransformerConfig, entries: list[Entry], is_imported: bool
) -> tuple[list[Entry], list[str]]:
    """Of a folder of ours: what cannot be read there stays there, and a note says why.

    The files of another library's tokenizer are carried all the same.
    """
    faults, gone = _faults_beside(home, config), dict[str, str]()
    for entry in entries:
        place, _, name = entry.found.name.partition("/")
        if place in faults and (place != VOCABULARY or not is_imported or name in DESCRIPTIONS):
            gone[entry.found.name] = faults[place]
    told = [f"warning: {place} is left out: {fault}" for place, fault in faults.items()]
    return without(entries, gone), told


def carry(home: Path, folder: Path, config: TransformerConfig) -> list[str]:
    """Copy what lies beside the weights of a folder of ours into another; notes on the rest."""
    beside, is_imported = Beside.of_ours(home), (home / ORIGIN).exists()
    entries = entries_of(beside, Way(OURS, None, "", frozenset()))
    kept, told = _sound(home, config, entries, is_imported)
    FilesPlan(kept).write(folder)
    return [*told_of_faults(entries), *told]


def _faults_beside(home: Path, config: TransformerConfig) -> dict[str, str]:
    """Part of a folder of ours -> why it is not to be carried."""
    readers: dict[str, Callable[[Path], object]] = {
        VOCABULARY: lambda path: load_vocabularies(path, config),
        SETTINGS: read_json,
        SEARCH: lambda path: load_search(path, config),
    }
    found = {}
    for name, read in readers.items():
        there = (home / name).exists()
        described = any((home / VOCABULARY / d).exists() for d in DESCRIPTIONS)
        if not there or (name == VOCABULARY and not described and (home / ORIGINAL).is_dir()):
            continue
        try:
            read(home / name)
        except ModuleNotFoundError:
            continue  # its files are whole; what reads them is not installed here
        except UserError as error:
            found[name] = str(error)
    return found


def _imported(making: Making, plan: FilesPlan) -> FilesPlan:
    """Another library's folder becomes ours: descriptions of its tokenizer, and its search."""
    made, made_from, notes = dict(plan.made), dict(plan.made_from), list(plan.notes)
    pair, why = imported_vocabularies(making.source, making.beside.folder)
    family, hears = making.source.family, making.config.feature_dim
    if pair is None and making.way.tokenizer and not hears:
        notes.append(f"warning: the model reads ids, not text: {why}")
    elif pair is None and family and usual_files(family.name) and not hears:
        notes.append(f"the new folder reads ids, not text: {why}")
    for side, vocabulary in zip(("source", "target"), pair or (), strict=False):
        place = f"{VOCABULARY}/{side}.json"
        made[place] = partial(_save_vocabulary, vocabulary, side)
        made_from[place] = ", ".join(sorted(making.way.tokenizer)) or CONFIG
    search, told = imported_search(making.source, making.beside.folder)
    notes += told
    if search is not None:
        made[SEARCH] = partial(save_search, search)
        made_from[SEARCH] = GENERATION if making.place_of(GENERATION) else CONFIG
    return replace(plan, made=made, made_from=made_from, notes=notes)


def _save_vocabulary(vocabulary: Vocabulary, side: Any, path: Path) -> None:
    vocabulary.save(path.parent, side)


def _same_config(making: Making, plan: FilesPlan) -> FilesPlan:
    """config.json as it lies there where it says what is to be written, else written anew."""
    path = making.place_of(CONFIG)
    if path is None or making.settings is None or settings_in(path) == making.settings:
        return plan
    reason = "with what has changed"
    return replace(plan, entries=[_rewritten(e, CONFIG, reason) for e in plan.entries])


def _rewritten(entry: Entry, place: str, reason: str) -> Entry:
    """An entry that was to be carried to a place as one that is written there anew."""
    if entry.what != CARRIED or entry.to != place:
        return entry
    return replace(entry, what=REWRITTEN, reason=reason)


def _restored(making: Making, plan: FilesPlan) -> FilesPlan:
    """A folder of ours becomes its library's again; the search as it is now."""
    plan, home, origin = _same_config(making, plan), making.home, making.source.origin
    needed = making.way.library in LIBRARIES and home is not None and not _has_no_files(home)
    if needed and not any(_is_of_tokenizer(e) for e in plan.entries):
        reads = NO_TOKENIZER if making.config.feature_dim else NONE
        none = f"{reads}: none lies in {VOCABULARY}/ of {home}"
        plan = replace(plan, notes=[*plan.notes, none])
    elif home is not None and (fault := _faults_beside(home, making.config).get(VOCABULARY)):
        told = f"warning: the files in {VOCABULARY}/ are written as they are: {fault}"
        plan = replace(plan, notes=[*plan.notes, told])
    if home is None or origin is None or not (home / SEARCH).is_file():
        return plan
    original, usual = making.place_of(GENERATION), usual_generation(making.config)
    try:
        now = load_search(home / SEARCH, making.config)
        before, _ = published(
            original, usual or origin.settings or {}, making.config, str(original)
        )
    except UserError as error:
        told = f"warning: {GENERATION} is written as it was: {error}"
        return replace(plan, notes=[*plan.notes, told])
    if now == before:
        return plan
    text = rewritten(now, making.config, settings_in(original) if original else usual)
    reason = f"{SEARCH} was changed since it was imported"
    return replace(
        plan,
        entries=[_rewritten(entry, GENERATION, reason) for entry in plan.entries],
        made={**plan.made, GENERATION: partial(_write_text, text)},
        made_from={**plan.made_from, GENERATION: SEARCH},
    )


def _is_of_tokenizer(entry: Entry) -> bool:
    return entry.what == CARRIED and entry.found.name.startswith(f"{VOCABULARY}/")


def _has_no_files(home: Path) -> bool:
    """Whether the vocabularies of a folder of ours need none: bytes are read by a class alone."""
    described = (settings_in(home / VOCABULARY / name) for name in DESCRIPTIONS)
    return all(content.get("kind") == ByteVocabulary.kind for content in described)


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _published(making: Making, plan: FilesPlan) -> FilesPlan:
    """A model that was not this library's: how it is searched and, for Marian, its tokenizer."""
    family = making.target.family
    if family is None or family.library not in LIBRARIES or making.config.feature_dim:
        return plan
    search, told = _own_search(making)
    text = rewritten(search, making.config, {})
    made = {GENERATION: partial(_write_text, text)}
    made_from = {GENERATION: SEARCH if making.has(SEARCH) else "the search of our own models"}
    files, source, note = _tokenizer(making, family.library)
    made_from |= dict.fromkeys(files, source)
    entries = [
        replace(entry, what=REWRITTEN, reason=f"as {', '.join(files)}")
        if files and entry.found.name.startswith(f"{VOCABULARY}/")
        else entry
        for entry in plan.entries
    ]
    notes = [*plan.notes, *told, *([note] if note else [])]
    return FilesPlan(entries, {**made, **files}, made_from, notes)


def _own_search(making: Making) -> tuple[Search, list[str]]:
    home = making.home
    try:
        if home is not None and (home / SEARCH).is_file():
            return load_search(home / SEARCH, making.config), []
    except UserError as error:
        return USUAL, [f"warning: {GENERATION} says our usual search: {error}"]
    return USUAL, []


def _tokenizer(making: Making, library: str) -> tuple[Writers, str, str | None]:
    """The tokenizer's files of vocabularies of ours; none, and why, where there can be none."""
    fault, home = None, making.home
    bare = home is None or not (home / VOCABULARY).is_dir()
    if bare and making.way.library in (None, T5X.name):  # of T5X, texts are its task's
        fault = "the model comes without vocabularies"
    elif making.way.library is not None:
        fault = f"the model's is of {making.way.library}, another library's"
    elif library != MARIAN:
        fault = f"vocabularies of ours are written for {MARIAN} alone"
    if fault is None and home is not None:
        try:
            pair = load_vocabularies(home / VOCABULARY, making.config)
            fault = why_not(pair)
        except UserError as error:
            pair, fault = None, str(error)
        if pair is not None and fault is None:
            return marian_tokenizer(pair, making.config, _training(home)), VOCABULARY, None
    return {}, "", f"{NONE}: {fault}"


def _training(home: Path) -> Mapping[str, Any]:
    """The settings of a run's training, where they are known."""
    content = settings_in(home / SETTINGS).get("settings")
    return content if isinstance(content, dict) else {}
