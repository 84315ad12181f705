"""Fonts for every script of a picture: matplotlib's own has no Hangul, Chinese, Thai and others."""

from __future__ import annotations

import functools
from pathlib import Path


def families_for(text: str) -> tuple[list[str], set[str]]:
    """The font families that a text is drawn with, and its characters that no font here has.

    The families of matplotlib's settings come first, then those that have most of what they lack;
    fonts that were installed since matplotlib last looked are found too.
    """
    import matplotlib
    from matplotlib import font_manager

    families = list(matplotlib.rcParams["font.family"])
    missing = set(filter(str.isprintable, text))
    missing -= characters_of(font_manager.findfont(font_manager.FontProperties(family=families)))
    while missing and installed():
        path = max(installed(), key=lambda path: len(characters_of(path) & missing))
        if not characters_of(path) & missing:
            break
        missing -= characters_of(path)
        if all(entry.fname != path for entry in font_manager.fontManager.ttflist):
            font_manager.fontManager.addfont(path)
        families.append(font_manager.FontProperties(fname=path).get_name())
    return families, missing


@functools.cache
def installed() -> list[str]:
    """Every font file of this machine, regular styles, whose names are short, first."""
    from matplotlib import font_manager

    def rank(path: str) -> tuple[bool, int, str]:
        name = Path(path).name
        return "regular" not in name.lower(), len(name), path

    return sorted(font_manager.findSystemFonts(), key=rank)


@functools.cache
def characters_of(path: str) -> frozenset[str]:
    """The characters that a font file has; none where it cannot be drawn with."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
