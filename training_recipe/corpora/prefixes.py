"""What lies under the PREFIX of parallel files whose languages nobody gave, or under no name."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping
from pathlib import Path

from training_recipe.corpora.named import CMUDICT, NAMED_CORPORA
from training_recipe.corpora.text_files import DELIMITERS
from transformer_spec.errors import Faults, printable_name

LANGUAGES = "--source-lang and --target-lang"
SHORTEST = 3  # letters of a name that may be a part of another


def ask_for_languages(files: Mapping[str, str], faults: Faults) -> None:
    """Add to the faults what there is of each part's files, so that the languages can be given."""
    found = {part: endings(name) for part, name in files.items()}
    parallel = [part for part, sides in found.items() if sides]
    if parallel:
        sides = sorted(set.intersection(*(set(found[part]) for part in parallel)))
        names = ", ".join(f"PREFIX.{printable_name(side)}" for side in sides)
        there = f"; of that name there {'are' if len(sides) > 1 else 'is'} {names}" if sides else ""
        faults.add(
            f"{', '.join(files[part] for part in parallel)}: parallel files PREFIX.SOURCE and "
            f"PREFIX.TARGET need {LANGUAGES}{there}"
        )
    for part, name in files.items():
        if part not in parallel:
            faults.add(_without_files(name, part == "train"))


def endings(prefix: str) -> list[str]:
    """Each X of which there is a file PREFIX.X or PREFIX.X.gz, but those of tables."""
    place, found = Path(prefix), set[str]()
    with contextlib.suppress(OSError):  # there is no such folder
        for file in place.parent.iterdir():
            ending = file.name.removeprefix(f"{place.name}.").removesuffix(".gz")
            if place.name and ending != file.name.removesuffix(".gz") and "." not in ending:
                found.add(ending)
    return sorted(ending for ending in found if f".{ending.lower()}" not in DELIMITERS)


def _without_files(name: str, is_data: bool) -> str:
    """The fault of a name of which there are no parallel files."""
    place, need = Path(name), f"parallel files PREFIX.SOURCE and PREFIX.TARGET need {LANGUAGES}"
    form = "as in corpus/train of corpus/train.en and corpus/train.de"
    if place.is_dir():
        return f"{name} is a folder; name files in it, by a PREFIX {form}: {need}"
    if place.is_file():
        return f"{name} is one file, and no .tsv or .csv; give a PREFIX, {form}: {need}"
    tables = [f"{name}{ending}" for ending in DELIMITERS if Path(f"{name}{ending}").is_file()]
    if tables:
        return f"there is no data {name}; did you mean {' or '.join(tables)}?"
    named = _named(place) if is_data else ""
    return f"there is no data {name}, nor any file {place.name}.* for {LANGUAGES}{named}"


def _named(place: Path) -> str:
    """The built-in data sets that a name may mean, or all of them."""
    if place.absolute().parent != Path.cwd():
        return ""
    known, given = (CMUDICT, *NAMED_CORPORA), place.name.lower()
    near = difflib.get_close_matches(given, known, n=len(known))
    near += [name for name in known if len(given) >= SHORTEST and given in name]
    if near:
        return f"; did you mean {' or '.join(dict.fromkeys(near))}?"
    return f"; data sets with a name are {', '.join(known)}"
