"""How a call searches: as the model was published, but for what the call itself says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from training_recipe.searching.search import Search, in_language
from training_recipe.text.vocabulary import Vocabulary

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
