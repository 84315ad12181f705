"""What a model looked at while it wrote an output: weights, tokens, one picture for each text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training_recipe.searching.attention import AttentionWeights
from training_recipe.searching.batches import width_of
from training_recipe.searching.search import Hypothesis, Search, prompt_of
from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import TransformerConfig

Attend = Callable[[np.ndarray, np.ndarray], AttentionWeights]


class Map(NamedTuple):
    """The weights (L, H, Q, K) of one text and what its rows and columns are."""

    weights: np.ndarray
    rows: list[str]
    columns: list[str]


def attention_map(
    attend: Attend,
    kind: str,
    source: Sequence[int],
    output: Hypothesis,
    vocabularies: tuple[Vocabulary, Vocabulary],
    config: TransformerConfig,
    search: Search,
) -> Map:
    """The weights of a kind for the ids of a source, without its frame, and for its output.

    The decoder is given what the ``search`` began with and the output: a row is what it looked at
    to write the row's token, the one that ended the output last. Lengths are padded as in decoding,
    so that XLA compiles few.
    """
    begun = prompt_of(search, config)
    end = config.eos_id if output.end_id is None else output.end_id
    written = [*output.ids, end] if output.ended else output.ids
    given = [*begun, *output.ids][: len(begun) - 1 + len(written)]
    read = vocabularies[0].frame.around(source)
    found = attend(
        _padded(read, config.max_source_length, config), _padded(given, config.max_length, config)
    )
    sides = {"cross": (1, written, 0, read), "encoder": (0, read, 0, read)}
    first, rows, second, columns = (sides | {"decoder": (1, written, 1, given)})[kind]
    before = len(begun) - 1 if rows is written else 0
    weights = getattr(found, kind)[:, 0, :, before : before + len(rows), : len(columns)]
    rows = [shown(vocabularies[first].token(index)) for index in rows]
    return Map(weights, rows, [shown(vocabularies[second].token(index)) for index in columns])


def _padded(ids: Sequence[int], longest: int, config: TransformerConfig) -> np.ndarray:
    """Ids as (1, length) int32."""
    padded = np.full((1, width_of(len(ids), longest)), config.pad_id, np.int32)
    padded[0, : len(ids)] = ids
    return padded


def shown(token: str) -> str:
    """A token as a label: what cannot be seen is written out."""
    if token == " ":
        return "\N{OPEN BOX}"
    return token if token.isprintable() else token.encode("unicode_escape").decode("ascii")


@dataclass
class Pictures:
    """Draws the attention of texts into FILE, or FILE-1, FILE-2 ... where there are ``several``.

    ``attend(source, target)`` gives a model's AttentionWeights, ``search`` is what found the
    outputs. ``undrawn`` and ``missing`` collect the numbers of the texts without tokens and the
    characters that no font here has.
    """

    path: Path
    kind: str
    attend: Attend
    vocabularies: tuple[Vocabulary, Vocabulary]
    config: TransformerConfig
    search: Search
    several: bool
    undrawn: list[int] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)

    def draw(self, number: int, source: Sequence[int], output: Hypothesis) -> None:
        """Draw the text of a number, given its ids without eos and its output.

        A file that cannot be written is a UserError.
        """
        from twinformer.translating.attention_plot import draw_map

        if not source:
            self.undrawn.append(number)
            return
        both, config = self.vocabularies, self.config
        found = attention_map(self.attend, self.kind, source, output, both, config, self.search)
        texts = (v.decode(part) for v, part in zip(both, (source, output.ids), strict=True))
        title = " \N{RIGHTWARDS ARROW} ".join(texts)
        self.missing |= draw_map(found, self.kind, title, self.file_of(number))

    def file_of(self, number: int) -> Path:
        """Where the picture of a text goes."""
        if not self.several:
            return self.path
        return self.path.with_name(f"{self.path.stem}-{number}{self.path.suffix}")

    def notes(self) -> list[str]:
        """What there is to say once every text was drawn."""
        notes = []
        if self.undrawn:
            noun = "line" if len(self.undrawn) == 1 else "lines"
            numbers = ", ".join(f"{number:,}" for number in self.undrawn)
            notes.append(f"no picture of {noun} {numbers}: the model was given no token")
        if self.missing:
            characters = " ".join(sorted(self.missing))
            notes.append(
                f"no font here has {characters}, which are drawn as boxes; install one that has "
                "them, such as the Noto Sans of that script"
            )
        return notes
