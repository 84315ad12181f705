"""HTML in which text is text: what is no markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from transformer_spec.errors import printable

VOID = ("input", "link", "meta")


class Markup(str):
    """HTML as it stands in a page."""


def element(
    tag: str, /, *content: str | None, **attributes: str | int | float | bool | None
) -> Markup:
    """One element: text in it and in its attributes is escaped, what is None or False is left out.

    ``class_`` stands for the attribute class, ``data_sort`` for data-sort.
    """
    given = (
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    start = f"<{tag}{''.join(given)}>"
    return Markup(start if tag in VOID else f"{start}{joined(content)}</{tag}>")


def joined(content: Iterable[str | None]) -> Markup:
    """Pieces one after the other, those that are no markup escaped."""
    return Markup("".join(text(piece) for piece in content if piece is not None))


def text(value: object) -> str:
    """Text for a page; control characters, which could turn a name around, are shown escaped."""
    return value if isinstance(value, Markup) else escape(printable(str(value)))


def verbatim(tag: str, content: str) -> Markup:
    """A style or a script, which HTML reads as it stands."""
    return Markup(f"<{tag}>\n{content}</{tag}>")
