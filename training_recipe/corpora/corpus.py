"""Where training examples come from: corpora with a name, parallel files, tables."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import contains
from pathlib import Path
from typing import Literal

from training_recipe.corpora.cmudict import dictionary_path, read_pronunciations
from training_recipe.corpora.downloads import fetch
from training_recipe.corpora.named import CMUDICT, NAMED_CORPORA, NamedCorpus
from training_recipe.corpora.overlaps import overlaps
from training_recipe.corpora.prefixes import ask_for_languages
from training_recipe.corpora.text_files import (
    Pair,
    existing,
    is_table,
    read_parallel,
    read_table,
)
from training_recipe.files.fingerprints import fingerprint
from transformer_spec.errors import Faults, UserError

PARTS = ("train", "valid", "test")
EXTRA = "extra data "
VALID_PERCENT = 5
TEST_PERCENT = 5

Task = Literal["pronunciation", "translation", "transcription"]
Languages = tuple[str | None, str | None]


@dataclass(frozen=True)
class Example:
    """A source and every right output for it, the usual one first."""

    source: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """Examples to train on, to choose by and to test on; notes say what was left or held out.

    ``seen`` are the sources to test on that are in the training data as well.
    """

    name: str
    task: Task
    train: list[Example]
    valid: list[Example]
    test: list[Example]
    notes: list[str] = field(default_factory=list)
    seen: frozenset[str] = frozenset()


def load_corpus(
    data: str | None = None,
    *,
    source_lang: str | None = None,
    target_lang: str | None = None,
    columns: Sequence[str] | None = None,
    valid: str | None = None,
    test: str | None = None,
    extra: Sequence[str] | None = None,
    spoken: bool = False,
) -> Corpus:
    """Read a corpus: None or ``cmudict``, a name of NAMED_CORPORA, or the user's own files.

    Those are the PREFIX of parallel files PREFIX.source_lang and PREFIX.target_lang, or a .tsv or
    .csv file with two ``columns``, by header name or number from 1. Each may end in .gz. ``valid``
    and ``test`` are named the same way; one that is None is the named corpus's own, or is held out
    of the data, 5 % each, by a hash of the source: an example there has every target that its
    source has. Notes count the pairs of a part that are in another one. ``extra`` are more files
    for training alone. A named corpus is read the other way round where its languages or columns
    are given so. Where sources are ``spoken`` they are names of sound files, seen from the folder
    of the file that names them. Raises one UserError that names everything wrong with the arguments
    and the files.
    """
    languages = (source_lang, target_lang)
    files = _others(valid, test, extra)
    if spoken and (data is None or data in NAMED_CORPORA or data == CMUDICT):
        raise UserError(
            f"--data {data or CMUDICT}: the model of --init hears, and this data set is text; name "
            "a table of sound files and texts, as in --data pairs.csv --columns audio,text"
        )
    if data is None or data == CMUDICT:
        _refuse_unused(languages, columns, valid, test, extra)
        return cmudict()
    if data in NAMED_CORPORA:
        return _named(NAMED_CORPORA[data], files, languages, columns)
    return _own(Path(data).name, {"train": data} | files, languages, columns, spoken)


def check_corpus(
    data: str,
    *,
    source_lang: str | None,
    target_lang: str | None,
    columns: Sequence[str] | None,
    valid: str | None,
    test: str | None,
    extra: Sequence[str] | None,
) -> None:
    """Raise the UserError of ``load_corpus`` where the arguments alone are wrong; reads no file."""
    languages = (source_lang, target_lang)
    if data == CMUDICT:
        _refuse_unused(languages, columns, valid, test, extra)
    elif data in NAMED_CORPORA:
        _check_sides(NAMED_CORPORA[data], languages, columns and tuple(columns))
    else:
        files = {"train": data} | _others(valid, test, extra)
        given = {part: file for part, file in files.items() if file is not None}
        _check_arguments(given, languages, columns)


def missing_files(names: Sequence[str], languages: Languages, faults: Faults) -> None:
    """Add to the faults those of the user's own files that are not there; reads none."""
    for name in names:
        if is_table(name):
            existing(name, faults)
        elif name not in (CMUDICT, *NAMED_CORPORA) and None not in languages:
            for language in languages:
                existing(f"{name}.{language}", faults)


def _others(
    valid: str | None, test: str | None, extra: Sequence[str] | None
) -> dict[str, str | None]:
    """The files of all parts but those of the data itself."""
    more = {f"{EXTRA}{n}": file for n, file in enumerate(extra or (), 1)}
    return {"valid": valid, "test": test} | more


def _named(
    named: NamedCorpus,
    files: Mapping[str, str | None],
    languages: Languages,
    columns: Sequence[str] | None,
) -> Corpus:
    """A corpus by name; ``files`` in its form take the place of its own parts."""
    _check_sides(named, languages, columns and tuple(columns))
    folder = fetch(named)
    own = {"train": named.train, "valid": named.valid, "test": named.test}
    parts = {part: file and str(folder / file) for part, file in own.items()}
    parts |= {part: file for part, file in files.items() if file is not None}
    languages = languages if any(languages) else named.languages
    return _own(named.name, parts, languages, columns or named.columns)


def _check_sides(named: NamedCorpus, languages: Languages, columns: Sequence[str] | None) -> None:
    """Refuse sides that a named corpus does not have, before it is downloaded."""
    asked = {"--source-lang": languages[0], "--target-lang": languages[1], "--columns": columns}
    asked = {flag: value for flag, value in asked.items() if value is not None}
    if named.columns:
        ways = [{"--columns": tuple(way)} for way in (named.columns, named.columns[::-1])]
        turned = f"--columns {','.join(ways[1]['--columns'])}"
    else:
        flags = ("--source-lang", "--target-lang")
        sides = (named.languages, named.languages[::-1])
        ways = [dict(zip(flags, way, strict=True)) for way in sides]
        turned = " ".join(f"{flag} {value}" for flag, value in ways[1].items())
    if asked and asked not in ways:
        raise UserError(
            f"{', '.join(asked)}: the data set {named.name} has its own sides, which {turned} "
            f"turns round; name your own data with --data, files called {named.name} as "
            f"./{named.name}"
        )


def _own(
    name: str,
    names: Mapping[str, str | None],
    languages: Languages,
    columns: Sequence[str] | None,
    spoken: bool = False,
) -> Corpus:
    """A corpus of files, one for each part; a part without a file is held out of the first."""
    files = {part: file for part, file in names.items() if file is not None}
    _check_arguments(files, languages, columns)
    notes: list[str] = []
    pairs = _read_parts(files, languages, columns, notes)
    pairs = _with_sounds(pairs, files) if spoken else pairs
    what = functools.cache(sound_of) if spoken else str
    absent = [part for part in PARTS if part not in pairs]
    if absent:
        pairs |= hold_out(pairs["train"], absent, what)
    pairs["train"] = pairs["train"] + _extra(pairs, notes)
    examples = {
        part: _by_source(pairs[part]) if part in absent else _examples(pairs[part])
        for part in PARTS
    }
    for part in absent:
        examined, held = len(examples[part]), len(pairs[part])
        sources = f", of {examined:,} different sources" if examined < held else ""
        notes.append(f"{part}: {held:,} pairs held out of the data{sources}")
    same = _of_sizes(what, [*pairs["valid"], *pairs["test"]]) if spoken else what
    known, seen = overlaps(pairs, absent, same)
    task = "transcription" if spoken else "translation"
    return Corpus(name, task, **examples, notes=[*notes, *known], seen=seen)


def _with_sounds(
    parts: Mapping[str, list[Pair]], files: Mapping[str, str]
) -> dict[str, list[Pair]]:
    """The pairs with their sound files in full; those that are not there are one UserError."""
    faults, found = Faults(), dict[str, list[Pair]]()
    for part, pairs in parts.items():
        folder = Path(files[part]).absolute().parent
        found[part] = [(str(folder / source), target) for source, target in pairs]
        absent = [path for path, _ in found[part] if not Path(path).is_file()]
        if absent:
            faults.add(
                f"{files[part]}: {len(absent):,} of {len(pairs):,} sources name no sound file, the "
                f"first is {absent[0]}; names are seen from the folder of {Path(files[part]).name}"
            )
    faults.raise_if_any("the model of --init hears, and cannot read the data")
    return found


def _extra(pairs: Mapping[str, list[Pair]], notes: list[str]) -> list[Pair]:
    """The pairs of the extra files but those with a sentence of the other parts, on either side."""
    parts = [part for part in pairs if part.startswith(EXTRA)]
    seen = [set(side) for side in zip(*(pairs["valid"] + pairs["test"]), strict=True)]
    kept = []
    for part in parts:
        new = [pair for pair in pairs[part] if not any(map(contains, seen, pair))]
        left = len(pairs[part]) - len(new)
        known = f", {left:,} left out that hold a sentence to validate or test by" if left else ""
        notes.append(f"{part}: {len(new):,} more pairs to train on{known}")
        kept += new
    return kept


def _examples(pairs: list[Pair]) -> list[Example]:
    return [Example(source, (target,)) for source, target in pairs]


def _by_source(pairs: list[Pair]) -> list[Example]:
    """One example for each source, with every different target that it has."""
    targets: dict[str, dict[str, None]] = {}
    for source, target in pairs:
        targets.setdefault(source, {})[target] = None
    return [Example(source, tuple(different)) for source, different in targets.items()]


def cmudict() -> Corpus:
    """The CMU Pronouncing Dictionary: spelling to phonemes without stress, split by word.

    Raises UserError, saying what to install, where the package ``cmudict`` is missing.
    """
    parts: dict[str, list[Example]] = {part: [] for part in PARTS}
    for word, pronunciations in read_pronunciations(dictionary_path()).items():
        parts[_part(word, PARTS)].append(Example(word, pronunciations))
    return Corpus(CMUDICT, "pronunciation", parts["train"], parts["valid"], parts["test"])


def sound_of(path: str) -> str:
    """What a sound file holds, wherever it lies and whatever it is called."""
    return fingerprint(Path(path))["sha256"]


def _of_sizes(what: Callable[[str], str], pairs: list[Pair]) -> Callable[[str], str]:
    """``what`` a sound holds, for those of the size of one in ``pairs``; no other file is read."""
    sizes = {os.path.getsize(source) for source, _ in pairs}
    return lambda source: what(source) if os.path.getsize(source) in sizes else source


def hold_out(
    pairs: list[Pair], absent: Sequence[str], what: Callable[[str], str] = str
) -> dict[str, list[Pair]]:
    """Split pairs into train and the absent parts; all pairs of one source fall on one side.

    Sources are one of which ``what`` is the same. The side depends on that alone, so more data
    never moves a source; only a part that would stay empty is given one. Raises UserError where
    there are too few different sources.
    """
    same = {source: what(source) for source in dict.fromkeys(source for source, _ in pairs)}
    side = {source: _part(source, absent) for source in same.values()}
    parts = ("train", *absent)
    if len(side) < len(parts):
        raise UserError(
            f"the data has {len(side)} different source lines, too few to hold out "
            f"{' and '.join(absent)}; give more data, or --valid and --test"
        )
    for part in parts:
        sizes = Counter(side.values())
        if not sizes[part]:
            largest = sizes.most_common(1)[0][0]
            moved = min((s for s in side if side[s] == largest), key=_hash)
            side[moved] = part
    return {part: [pair for pair in pairs if side[same[pair[0]]] == part] for part in parts}


def _part(source: str, held_out: Sequence[str]) -> str:
    percentile = _hash(source) % 100
    if percentile >= 100 - TEST_PERCENT and "test" in held_out:
        return "test"
    first_valid = 100 - TEST_PERCENT - VALID_PERCENT
    if first_valid <= percentile < 100 - TEST_PERCENT and "valid" in held_out:
        return "valid"
    return "train"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


def _refuse_unused(
    languages: Languages,
    columns: Sequence[str] | None,
    valid: str | None,
    test: str | None,
    extra: Sequence[str] | None,
) -> None:
    """Refuse what only other data can have: the likely mistake is a missing --data."""
    flags = ("--source-lang", "--target-lang", "--columns", "--valid", "--test", "--extra-data")
    given = zip(flags, (*languages, columns, valid, test, extra), strict=True)
    unused = [flag for flag, value in given if value is not None]
    if unused:
        raise UserError(
            f"{', '.join(unused)}: the data set {CMUDICT} has its own sides and split; name your "
            f"own data with --data, files called {CMUDICT} as ./{CMUDICT}"
        )


def _check_arguments(
    files: Mapping[str, str], languages: Languages, columns: Sequence[str] | None
) -> None:
    faults = Faults()
    tables = [name for name in files.values() if is_table(name)]
    prefixes = {part: name for part, name in files.items() if not is_table(name)}
    if tables and columns is not None and len(columns) == 2 and columns[0] == columns[1]:
        faults.add(f"--columns names {columns[0]} twice: source and target are the same text")
    if tables and (columns is None or len(columns) != 2):
        faults.add(
            f"{', '.join(tables)}: give the source and the target column, as in --columns Q,A "
            "(header names) or --columns 1,2 (a file without a header)"
        )
        for name in tables:  # which are read after this only
            existing(name, faults)
    if prefixes and None in languages:
        ask_for_languages(prefixes, faults)
    if prefixes and languages[0] is not None and languages[0] == languages[1]:
        faults.add(f"--source-lang and --target-lang are both {languages[0]}: the same file twice")
    if not tables and columns is not None:
        faults.add("--columns is for .tsv and .csv files, and none is given")
    if not prefixes and any(languages):
        faults.add("--source-lang and --target-lang are for parallel files, and none is given")
    faults.raise_if_any("cannot read the data")


def _read_parts(
    files: dict[str, str],
    languages: Languages,
    columns: Sequence[str] | None,
    notes: list[str],
) -> dict[str, list[Pair]]:
    faults = Faults()
    parts = {}
    for part, name in files.items():
        known = len(faults.messages)
        if is_table(name):
            pairs = read_table(name, columns or (), faults, notes)
        else:
            pairs = read_parallel(name, (str(languages[0]), str(languages[1])), faults)
        parts[part] = _with_both_sides(pairs, part, notes)
        if not parts[part] and len(faults.messages) == known:
            faults.add(f"{name} has no pair with text on both sides ({len(pairs):,} were read)")
    faults.raise_if_any("cannot read the data")
    return parts


def _with_both_sides(pairs: list[Pair], part: str, notes: list[str]) -> list[Pair]:
    """Leave out pairs that lack a side, and note how many."""
    kept = [pair for pair in pairs if all(pair)]
    blank = sum(not any(pair) for pair in pairs)
    one_sided = len(pairs) - len(kept) - blank
    for count, what in ((one_sided, "have one empty side"), (blank, "are empty on both sides")):
        if count:
            notes.append(f"{part}: {count:,} of {len(pairs):,} pairs {what} and are left out")
    return kept
