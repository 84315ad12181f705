"""What stands around the tokens of a text: an end, a language, a beginning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PAD_ID, UNK_ID, BOS_ID, EOS_ID = range(4)


class Frame(NamedTuple):
    """Ids before and after those of a text; the text of a model trained here ends with eos.

    M2M100 has the language before the text, mBART behind its end, BART a beginning before it.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = (EOS_ID,)

    @property
    def size(self) -> int:
        """How many ids a frame adds to a text."""
        return len(self.before) + len(self.after)

    def around(self, ids: Sequence[int]) -> list[int]:
        """The ids of a text as a model reads or writes them."""
        return [*self.before, *ids, *self.after]
