"""The languages of a model that has several: which one its source and its target are in."""

from __future__ import annotations

from collections.abc import Sequence

from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import Faults, UserError

SIDES = ("source", "target")
SOME = 3  # codes that a message shows
FORM = "--languages SOURCE,TARGET"


def in_languages(
    pair: tuple[Vocabulary, Vocabulary], languages: str | Sequence[str] | None
) -> tuple[Vocabulary, Vocabulary]:
    """Both vocabularies in the languages of two codes, "en_XX,de_DE" or a pair of them.

    A code that is empty leaves that side in the language that the model came with. One UserError
    names what the model does not have, a side that needs a language and has none, and languages for
    a model without any.
    """
    codes, faults, spoken = _codes(languages), Faults(), list[Vocabulary]()
    for vocabulary, side, code in zip(pair, SIDES, codes, strict=True):
        try:
            spoken.append(_in_language(vocabulary, side, code))
        except UserError as error:
            faults.add(f"{side}: {error}")
    faults.raise_if_any("this model cannot be given these languages")
    return spoken[0], spoken[1]


def _codes(languages: str | Sequence[str] | None) -> Sequence[str]:
    """The codes of source and target; what is no pair is a UserError."""
    if languages is None:
        return "", ""
    codes = languages.split(",") if isinstance(languages, str) else list(languages)
    if len(codes) != len(SIDES):
        raise UserError(f"languages are {languages!r}; give two codes: {FORM}, one may be empty")
    return [code.strip() for code in codes]


def _in_language(vocabulary: Vocabulary, side: str, code: str) -> Vocabulary:
    if code:
        return vocabulary.speaking(code)
    if vocabulary.languages and vocabulary.language is None:
        some = ", ".join(list(vocabulary.languages)[:SOME])
        raise UserError(
            f"no language was chosen, and the model has {len(vocabulary.languages)} ({some} ...); "
            f"give {FORM}"
        )
    return vocabulary
