"""The vocabularies of a folder, by the family of the model in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convert.tokenizers.byte_level import read_bart
from convert.tokenizers.fairseq_order import read_mbart, read_nllb
from convert.tokenizers.folder import Folder
from convert.tokenizers.listing import tokenizer_files
from convert.tokenizers.m2m100 import TABLE, read_m2m100
from convert.tokenizers.marian import read_marian
from convert.tokenizers.pairs import Pair
from training_recipe.text.model_vocabularies import check_fit
from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import TransformerConfig, UserError


def _read_m2m100(folder: Folder) -> Pair:
    """M2M100 and NLLB are one model with two tokenizers."""
    named = folder.tokenizer_class
    if named not in ("", "M2M100Tokenizer", "NllbTokenizer"):
        raise UserError(f"tokenizers of the class {named} are not read for M2M100")
    is_nllb = named == "NllbTokenizer" if named else not folder.has(TABLE)
    return read_nllb(folder) if is_nllb else read_m2m100(folder)


READERS: dict[str, Callable[[Folder], Pair]] = {
    "marian": read_marian,
    "bart": read_bart,
    "mbart": read_mbart,
    "m2m100": _read_m2m100,
}


def read_vocabularies(
    folder: Path, family_name: str, settings: Mapping[str, Any], config: TransformerConfig
) -> tuple[Vocabulary, Vocabulary] | None:
    """The vocabularies of source and target; None where a folder has no tokenizer.

    ``settings`` are the content of its config.json. Files that are missing or damaged, that differ
    from each other or do not fit the model are a UserError.
    """
    if not tokenizer_files(folder):
        return None
    name = family_name.removesuffix("-flax")
    if name not in READERS:
        known = ", ".join(READERS)
        raise UserError(f"tokenizers of {family_name} models are not read; those of {known} are")
    try:
        pair = READERS[name](Folder(folder, settings, config))
    except ValueError as error:
        raise UserError(f"the tokenizer in {folder} cannot be read: {error}") from error
    check_fit(pair, config, f"the tokenizer in {folder}")
    return pair
