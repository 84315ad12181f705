"""Fonts for every script of a picture: matplotlib's own has no Hangul, Chinese, Thai and others."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

# Of fonts that have the same characters, the plain ones are taken.
FANCY = re.compile(
    r"bold|italic|oblique|black|light|thin|heavy|medium|cond|mono|serif|myeongjo", re.I
)


def families_for(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """The font families that texts are drawn with, and the characters that no font here has.

    The families of matplotlib's settings come first; fonts that were installed since matplotlib
    last looked are found too.
    """
    import matplotlib
    from matplotlib import font_manager

    families = list(matplotlib.rcParams["font.family"])
    missing = {letter for text in texts for letter in text if letter.isprintable()}
    missing -= characters_of(font_manager.findfont(font_manager.FontProperties(family=families)))
    for path in chosen(missing):
        if all(entry.fname != path for entry in font_manager.fontManager.ttflist):
            font_manager.fontManager.addfont(path)
        families.append(font_manager.FontProperties(fname=path).get_name())
        missing -= characters_of(path)
    return families, missing


def chosen(missing: set[str]) -> Iterator[str]:
    """Installed fonts that together have what is missing, as far as any has it, the best first."""
    covers: dict[str, set[str]] = {}
    for path in installed() if missing else ():
        covers[path] = characters_of(path) & missing
        if covers[path] == missing:
            covers = {path: missing}
            break
    left = set(missing)
    while covers:
        best = max(covers, key=lambda path: len(covers[path] & left))
        if not covers[best] & left:
            return
        left -= covers[best]
        yield best


@functools.cache
def installed() -> list[str]:
    """Every font file of this machine, plain styles before bold and narrow ones."""
    from matplotlib import font_manager

    def rank(path: str) -> tuple[bool, str]:
        return bool(FANCY.search(Path(path).name)), path

    return sorted(font_manager.findSystemFonts(), key=rank)


@functools.cache
def characters_of(path: str) -> set[str]:
    """The characters that a font file has; none where it cannot be drawn with."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):
        return set()
    return set(map(chr, font.get_charmap())) if font.scalable else set()
