"""Vocabularies of ours as the files of transformers' MarianTokenizer.

Its sentencepiece models are ours, byte for byte: they hold the normalisation too. Its tables give
each piece the id that the piece has with us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from training_recipe.files.json_files import json_text
from training_recipe.text.vocabulary import SentencePieceVocabulary, Vocabulary
from transformer_spec import TransformerConfig

Writers = dict[str, Callable[[Path], object]]
LANGUAGES = ("source_lang", "target_lang")


def why_not(pair: tuple[Vocabulary, Vocabulary]) -> str | None:
    """Why vocabularies cannot become a MarianTokenizer, or None."""
    others = sorted({v.kind for v in pair if not isinstance(v, SentencePieceVocabulary)})
    if others:
        return f"a MarianTokenizer holds sentencepiece models, and the vocabulary is of {others[0]}"
    return None


def marian_tokenizer(
    pair: tuple[Vocabulary, Vocabulary], config: TransformerConfig, settings: Mapping[str, Any]
) -> Writers:
    """File name -> what writes it, of vocabularies that ``why_not`` has nothing against.

    ``settings`` are those of the training, which may name the languages.
    """
    source, target = pair
    assert isinstance(source, SentencePieceVocabulary)
    assert isinstance(target, SentencePieceVocabulary)
    separate = source.model != target.model
    about: dict[str, Any] = {"tokenizer_class": "MarianTokenizer"}
    about |= {name: settings[name] for name in LANGUAGES if isinstance(settings.get(name), str)}
    about |= {"model_max_length": config.max_length, "separate_vocabs": separate}
    about |= {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    files: Writers = {
        "source.spm": partial(_write_bytes, source.model),
        "target.spm": partial(_write_bytes, target.model),
        "vocab.json": partial(_write_table, source),
        "tokenizer_config.json": partial(_write_text, json_text(about)),
    }
    return files | ({"target_vocab.json": partial(_write_table, target)} if separate else {})


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _write_text(content: str, path: Path) -> None:
    path.write_text(content, encoding="utf-8")


def _write_table(vocabulary: Vocabulary, path: Path) -> None:
    table = {vocabulary.token(number): number for number in range(vocabulary.size)}
    path.write_text(json_text(table), encoding="utf-8")
