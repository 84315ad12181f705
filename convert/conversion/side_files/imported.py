"""What is read of a folder besides weights: a library's vocabularies, and a search.

What cannot be read never stops the weights: a note says what is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convert.conversion.side_files.beside import SEARCH, VOCABULARY, folder_of
from convert.conversion.sources.source import Import
from convert.families.registry import LIBRARIES
from convert.families.whisper.ids import known_tokens
from convert.files.generation import published
from convert.files.kinds import CONFIG, GENERATION
from convert.tokenizers import read_vocabularies, usual_files
from training_recipe.searching.published import load_search
from training_recipe.searching.search import Search
from training_recipe.speech.settings import generation_settings
from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import TransformerConfig, UserError

Pair = tuple[Vocabulary, Vocabulary]
NO_TOKENIZER = "no tokenizer lies beside the weights, so the model reads ids"
BY_SAVE = (
    "torch_transformer.save(model, NEW, vocabulary=...) in Python writes a folder that has them"
)


def imported_vocabularies(source: Import, folder: Path | None) -> tuple[Pair | None, str]:
    """The vocabularies of another library's folder, or why there are none."""
    if folder is None or source.family is None:
        return None, no_tokenizer(source, folder)
    settings = source.origin.settings if source.origin else None
    try:
        pair = read_vocabularies(folder, source.family.name, settings or {}, source.config)
    except ModuleNotFoundError as error:
        return None, f"its tokenizer needs {not_installed(error)}"
    except UserError as error:
        return None, str(error)
    return pair, "" if pair else no_tokenizer(source, folder)


def not_installed(error: ModuleNotFoundError) -> str:
    """A library of texts that is missing, and what brings it and the others."""
    extras = "pip install 'twinformer[torch]' or 'twinformer[jax]'"
    return f"{error.name}, which is not installed: {extras} brings all that texts need"


def no_tokenizer(source: Import, folder: Path | None) -> str:
    """Why a model of another library reads ids, and what to do for texts."""
    files = usual_files(source.family.name) if source.family else None
    if files is None:
        return f"{NO_TOKENIZER}; where you have vocabularies of ours, {BY_SAVE}"
    if folder is None:
        both = f"the weights and the files of their library (config.json, {files})"
        return f"{NO_TOKENIZER}; put {both} into one folder, and give that"
    place = "the current folder" if folder == Path() else folder
    return f"{NO_TOKENIZER}; put its files ({files}) into {place}"


def no_vocabularies(home: Path) -> str:
    """Why a model of ours reads ids, and what to do for texts."""
    place = f"{home / VOCABULARY} does not exist; without vocabularies a model reads no text"
    return f"{place}: copy {VOCABULARY}/ of the model that it was made of, or {BY_SAVE}"


def imported_search(source: Import, folder: Path | None) -> tuple[Search | None, list[str]]:
    """The search that another library's folder was published with, and what is said of it."""
    if source.family is None or source.family.library not in LIBRARIES:
        return None, []
    settings = source.origin.settings if source.origin else None
    path = folder / GENERATION if folder is not None else None
    place = path if path is not None and path.is_file() else None
    label = str(folder / CONFIG) if folder is not None else "the config"
    try:
        return published(
            place, usual_generation(source.config) or settings or {}, source.config, label
        )
    except UserError as error:
        return None, [f"warning: the model's search is not kept: {error}"]


def usual_generation(config: TransformerConfig) -> dict[str, Any]:
    """How a model of speech with a published vocabulary writes where no file says it; else {}."""
    tokens = known_tokens(config.target_vocab_size) if config.feature_dim else None
    return {} if tokens is None else generation_settings(tokens, None, None)


def search_beside(found: Import) -> tuple[Search | None, list[str]]:
    """The search beside the weights; a damaged search.json of ours is a UserError."""
    home = found.located.home
    if home is None:
        return imported_search(found, folder_of(found.located))
    return (load_search(home / SEARCH) if (home / SEARCH).is_file() else None), []
