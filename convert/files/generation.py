"""The search that a model was published with, or that was saved beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convert.checkpoints.folders import Located
from training_recipe.searching.search import Search
from transformer_spec import TransformerConfig


def read_search(
    located: Located, settings: Mapping[str, Any], config: TransformerConfig
) -> tuple[Search | None, list[str]]:
    """The search of a folder, ours or another library's, and notes; None where there is none."""
    return None, []
