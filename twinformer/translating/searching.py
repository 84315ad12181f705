"""How a call searches: as the model was published, but for what the call itself says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from training_recipe.searching.search import Search, check_search, in_language
from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import TransformerConfig, UserError

DEFAULT_BEAM = 5
# What both rules know, and an exact search takes over from what a model was published with.
SHARED = ("beam", "length_penalty", "max_length", "start_id", "forced_first_id")


def search_of(
    published: Search | None, given: Mapping[str, Any], target: Vocabulary | None = None
) -> Search:
    """The settings that were given over those of the model, or over a beam of 5.

    ``given`` are fields of Search by name. The language of the ``target`` vocabulary decides what
    an output begins with. What no search can follow is for ``check_search`` to say.
    """
    base = published or Search(beam=DEFAULT_BEAM)
    if given.get("rule", base.rule) != base.rule:
        base = Search(**{name: getattr(base, name) for name in SHARED}, rule=given["rule"])
    if given.get("sample", base.sample):
        base = dataclasses.replace(base, beam=1)
    else:
        base = dataclasses.replace(base, beam=max(base.beam, given.get("nbest", 1)))
    if target is not None:
        base = in_language(base, target)
    return dataclasses.replace(base, **given)


def check_asked(search: Search, given: Mapping[str, Any], config: TransformerConfig) -> None:
    """``check_search``, and whether outputs can be as long as was asked: else a UserError.

    What a model was published with may be longer than it can write, and is cut.
    """
    check_search(search)
    longest, least = config.max_length, given.get("min_length", 0)
    why = "the model's max_length"
    if search.max_length is not None and search.max_length < longest:
        longest, why = search.max_length, "max_length"
    if least > longest:
        raise UserError(f"cannot search: min_length is {least}; {why} is {longest}, less than that")
