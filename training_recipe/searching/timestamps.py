"""The tokens that say when something was said, and the rules of writing them.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.3; the
rules are those of the code published with it, which transformers' generate follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral


@dataclass(frozen=True)
class Timestamps:
    """Ids of a vocabulary whose timestamps are all ids from ``first`` on, in the order of time.

    A timestamp stands before and after every stretch of text, so two stand between stretches, and
    none is before an earlier one. ``without`` is the token that asks for none of them, which is
    never written; ids below ``end``, the end of an output, are text. The first token is a
    timestamp, at most ``latest_first`` steps after ``first``; None: any.
    """

    first: int
    without: int
    end: int
    latest_first: int | None = 50

    def faults(self) -> list[str]:
        """What is no id, and what is no number of steps."""
        found = [
            f"timestamps.{name} is {token!r}; it must be a token id"
            for name, token in self.ids()
            if not _counts(token)
        ]
        if not (self.latest_first is None or _counts(self.latest_first)):
            allowed = "it must be a number of steps, or None"
            found.append(f"timestamps.latest_first is {self.latest_first!r}; {allowed}")
        return found

    def ids(self) -> list[tuple[str, int]]:
        """The names of its token ids, and the ids."""
        return [("first", self.first), ("without", self.without), ("end", self.end)]


def _counts(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0
