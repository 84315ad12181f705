"""A family of the user's: known from the call on, under a name of its own."""

from __future__ import annotations

import numpy as np
import pytest
from family_checks import source_of
from messages import says

from convert.conversion.request import ConversionRequest, sources
from convert.conversion.target import foreign, targets
from convert.families.registry import FAMILIES, recognize, register
from convert.families.tutorial import Tutorial
from transformer_spec import UserError


class Mine(Tutorial):
    """The tutorial under another name, with a mark in its settings."""

    name = "mine"

    def recognizes(self, source) -> bool:
        return (source.settings or {}).get("model_type") == "mine"


@pytest.fixture
def mine():
    yield Mine()
    FAMILIES.pop("mine", None)


def test_it_can_be_asked_for_once_it_is_there(mine) -> None:
    marked = source_of({"x": np.zeros(3)}, {"model_type": "mine"})
    assert "mine" not in sources() + targets() and foreign("mine") is None
    with pytest.raises(UserError, match="to is 'mine'; choose one of"):
        ConversionRequest("a", "b", to="mine")
    with pytest.raises(UserError, match="no known family"):
        recognize(marked)
    register(mine)
    assert "mine" in sources() and "mine" in targets() and foreign("mine") is mine
    assert ConversionRequest("a", "b", to="mine", family="mine").to == "mine"
    assert recognize(marked) is mine


@pytest.mark.parametrize("name", ["marian", "twinformer", "d2l"])
def test_a_name_that_is_taken_is_refused(mine, name) -> None:
    mine.name = name
    before = dict(FAMILIES)
    with pytest.raises(UserError) as error:
        register(mine)
    says(str(error.value), name, "choose another")
    assert before == FAMILIES
