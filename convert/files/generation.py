"""The search that a model was published with: generation_config.json, or what config.json says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training_recipe.files.json_files import json_text
from training_recipe.searching.published import (
    generation_part,
    generation_settings,
    read_generation,
)
from training_recipe.searching.search import Search
from transformer_spec import TransformerConfig
from transformer_spec.json_text import read_json_file


def published(
    generation: Path | None, settings: Mapping[str, Any], config: TransformerConfig, label: str
) -> tuple[Search, list[str]]:
    """The search of another library's folder, and what is to be said of settings.

    As transformers does, generation_config.json alone is read where there is a readable one, else
    config.json; ``label`` is what to call that. Settings of wrong types are a UserError.
    """
    content, notes = None, list[str]()
    if generation is not None:
        content, notes = _content(generation)
    if content is not None:
        search, more = read_generation(content, config, str(generation))
        return search, [*notes, *more]
    search, more = read_generation(generation_part(settings), config, label)
    return search, [*notes, *more]


def _content(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    try:
        content = read_json_file(path)
    except (OSError, ValueError) as error:
        return None, [f"warning: {path} is not read, config.json is: {error}"]
    if not isinstance(content, dict):
        return None, [f"warning: {path} is not read, config.json is: it holds no JSON object"]
    return content, []


def rewritten(search: Search, config: TransformerConfig, original: Mapping[str, Any]) -> str:
    """generation_config.json that says a search, with what else the original said.

    What would then mean another search is left out of it.
    """
    settings = generation_settings(search, config)
    if config.feature_dim:  # whose padding is a token of ours alone
        settings["pad_token_id"] = original.get("pad_token_id", config.eos_id)
    both = {**original, **settings}
    wanted, _ = read_generation(settings, config, "what is written")
    found, _ = read_generation(both, config, "what is written")
    return json_text(both if found == wanted else settings)
