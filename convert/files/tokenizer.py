"""The files of a tokenizer in another library's folder, and the vocabularies that they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import TransformerConfig

NAMES = {
    "source.spm", "target.spm", "vocab.json", "target_vocab.json", "vocab.txt", "merges.txt",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "spm.model", "vocab.yml",
    "chat_template.jinja",
}  # fmt: skip


def tokenizer_files(folder: Path) -> list[str]:
    """Names of the files of a tokenizer in a folder."""
    return sorted(name for name in NAMES if (folder / name).is_file())


def read_pair(
    folder: Path, family: str, settings: Mapping[str, Any], config: TransformerConfig
) -> tuple[Vocabulary, Vocabulary] | None:
    """The vocabularies of source and target; None where a folder has no tokenizer.

    Files that are damaged or missing are a UserError.
    """
    from convert.tokenizers.reading import read_vocabularies

    return read_vocabularies(folder, family, settings, config)
