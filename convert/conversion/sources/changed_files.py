"""Files beside weights that say what a model is: whether they are as a conversion wrote them.

People edit a config or a vocabulary on purpose, so that a change is a note and no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convert.checkpoints.folders.config_files import CONFIG
from convert.checkpoints.records import LEDGER
from convert.core.ledger import LEDGER_VERSION
from convert.files.account import CARRIED
from convert.formats.content import some_of
from training_recipe.files.fingerprints import fingerprint
from training_recipe.files.json_files import read_json
from transformer_spec import UserError

WRITTEN = "written"
SEARCH, VOCABULARY = "search.json", "vocabulary"


def written_files(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of what says in a folder of ours, beside the weights, what its model is."""
    places = [folder / CONFIG, folder / SEARCH, *sorted((folder / VOCABULARY).glob("*"))]
    return {
        place.relative_to(folder).as_posix(): fingerprint(place)["sha256"]
        for place in places
        if place.is_file()
    }


def changed_files(folder: Path) -> list[str]:
    """A note where such files are not as the conversion into a folder left them; else nothing.

    Of a folder whose conversion did not say that of all, those that it carried are compared.
    """
    try:
        content = read_json(folder / LEDGER) if (folder / LEDGER).is_file() else {}
    except UserError:
        return []
    if content.get("format_version") != LEDGER_VERSION:
        return []
    known = content.get(WRITTEN, _carried(content.get("files")))
    now = written_files(folder)
    names = [n for n, was in known.items() if now.get(n) != was] if isinstance(known, dict) else []
    if not names:
        return []
    differ = "is not as it was" if len(names) == 1 else "are not as they were"
    return [
        f"{some_of(names)} {differ} when {folder / LEDGER} was written; what is there now is read"
    ]


def _carried(files: Any) -> dict[str, str]:
    """The same of what was carried byte for byte, from what is said of each file of the source."""
    entries = [e for e in files.values() if isinstance(e, dict)] if isinstance(files, dict) else []
    return {str(entry["to"]): entry["sha256"] for entry in entries if _is_known(entry)}


def _is_known(entry: Mapping[str, Any]) -> bool:
    of_model = str(entry.get("to")).startswith((SEARCH, f"{VOCABULARY}/"))
    return of_model and entry.get("what") == CARRIED and "sha256" in entry
