"""A proposed table of names: its content as data, what of it is open, and its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convert.naming.parsing import table_of
from convert.naming.rendering import Place, render
from convert.naming.table import NamingTable

GUESS = "guess: "  # what a comment behind such a line begins with


@dataclass(frozen=True)
class Group:
    """Names of theirs that nothing but words or order tells apart.

    ``theirs`` are keys of ``names``; ``ours`` are what they are proposed to be, in their order. A
    tensor that holds several of ours has as many of them, one after the other. Every order of
    ``ours`` fits the shapes. ``told`` says whether words tell which is which. ``spare`` are places
    of ours that are empty and would fit as well, in the order of ``ours``.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    told: bool = False
    spare: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """A table as plain data (``content``, as a TOML text says it), and what of it is open.

    ``choices`` are settings that nothing shows, with the values that they may have, the proposed
    one first; a setting that is not in the table has its default there. ``layouts`` are other
    layouts that a name may have. ``comments`` stand behind lines of the text, ``heading`` above it;
    ``holes`` are tensors without a place, and places without a tensor.
    """

    content: Mapping[str, Any]
    groups: tuple[Group, ...] = ()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    layouts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    comments: Mapping[Place, str] = field(default_factory=dict)
    holes: tuple[str, ...] = ()
    heading: Sequence[str] = ()

    def table(self, label: str = "the proposed table") -> NamingTable:
        """The table itself."""
        return table_of(self.content, label)

    @property
    def guesses(self) -> int:
        """How many lines say of themselves that they are guesses."""
        return sum(GUESS in comment for comment in self.comments.values())

    @property
    def text(self) -> str:
        """The table as TOML, with its comments."""
        return render(self.content, self.comments, self.heading)


def targets_of(value: Any) -> list[str]:
    """What a name is of ours, from its value in ``names``."""
    to = value["to"] if isinstance(value, Mapping) else value
    return [to] if isinstance(to, str) else list(to)
