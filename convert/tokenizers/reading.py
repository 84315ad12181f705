"""The vocabularies of a folder, by the family of the model in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convert.tokenizers.byte_level import read_bart, read_blenderbot
from convert.tokenizers.fairseq_order import read_mbart, read_nllb
from convert.tokenizers.folder import JSON, Folder
from convert.tokenizers.listing import tokenizer_files
from convert.tokenizers.m2m100 import TABLE, read_m2m100
from convert.tokenizers.marian import read_marian
from convert.tokenizers.other_orders import read_pegasus, read_plbart
from convert.tokenizers.own_files import read_fairseq, read_marian_npz, read_opennmt
from convert.tokenizers.pipelines import GENERAL, read_pipeline
from convert.tokenizers.t5 import BYT5, ROBERTA, read_t5
from convert.tokenizers.whisper import read_whisper
from training_recipe.text.model_vocabularies import check_fit
from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import TransformerConfig, UserError

Pair = tuple[Vocabulary, Vocabulary]
CLASSES = {
    "marian": ("MarianTokenizer",),
    "bart": ("BartTokenizer", "RobertaTokenizer"),
    "mbart": ("MBartTokenizer", "MBart50Tokenizer"),
    "plbart": ("PLBartTokenizer",),
    "m2m100": ("M2M100Tokenizer", "NllbTokenizer"),
    "pegasus": ("PegasusTokenizer",),
    "blenderbot": ("BlenderbotTokenizer",),
    "t5": ("T5Tokenizer", BYT5, ROBERTA),
    "mt5": ("T5Tokenizer", "MT5Tokenizer"),
    "umt5": ("T5Tokenizer", "LlamaTokenizer"),
}
PIECES_FIRST = ("t5", "mt5", "umt5")  # tokenizer.json of theirs has lost pieces of bytes
UNREAD = {
    "fsmt": "it cuts texts by Moses' rules first, which are not part of this project",
    "blenderbot-small": "it cuts texts by rules of its own, which are not part of this project",
}


def _read_m2m100(folder: Folder) -> Pair:
    """M2M100 and NLLB are one model with two tokenizers."""
    named = folder.tokenizer_class
    is_nllb = named == "NllbTokenizer" if named else not folder.has(TABLE)
    return read_nllb(folder) if is_nllb else read_m2m100(folder)


READERS: dict[str, Callable[[Folder], Pair]] = {
    "marian": read_marian,
    "bart": read_bart,
    "mbart": read_mbart,
    "plbart": read_plbart,
    "m2m100": _read_m2m100,
    "pegasus": read_pegasus,
    "blenderbot": read_blenderbot,
    **dict.fromkeys(PIECES_FIRST, read_t5),
    "fairseq": read_fairseq,
    "opennmt": read_opennmt,
    "eole": read_opennmt,
    "marian-npz": read_marian_npz,
    **dict.fromkeys(("whisper", "whisper-openai", "whisper-ctranslate2"), read_whisper),
}


# What is beside the weights of a model that reads text: of most what transformers writes.
USUAL = {
    "marian": "source.spm, target.spm, vocab.json",
    **dict.fromkeys(PIECES_FIRST, "spiece.model, tokenizer_config.json"),
    "fairseq": "dict.txt and the .model of sentencepiece",
    **dict.fromkeys(("opennmt", "eole"), "the .model of sentencepiece"),
    "marian-npz": "its .spm, or its .yml and the .model of sentencepiece",
}
TRANSFORMERS = "tokenizer.json, tokenizer_config.json"


def usual_files(family_name: str) -> str | None:
    """Which files a family's tokenizer usually has; None where none of its is read."""
    name = family_name.removesuffix("-flax")
    return USUAL.get(name, TRANSFORMERS) if name in READERS else None


def read_vocabularies(
    folder: Path, family_name: str, settings: Mapping[str, Any], config: TransformerConfig
) -> tuple[Vocabulary, Vocabulary] | None:
    """The vocabularies of source and target; None where a folder has no tokenizer.

    ``settings`` are the content of its config.json. Files that are missing or damaged, that differ
    from each other or do not fit the model are a UserError.
    """
    name = family_name.removesuffix("-flax")
    found = Folder(folder, settings, config)
    if not tokenizer_files(folder) and not (name in CLASSES and found.tokenizer_class == BYT5):
        return None
    try:
        pair = _reader(name, found)(found)
    except ValueError as error:
        raise UserError(f"the tokenizer in {folder} cannot be read: {error}") from error
    check_fit(pair, config, f"the tokenizer in {folder}")
    return pair


def _reader(name: str, folder: Folder) -> Callable[[Folder], Pair]:
    """How a family's tokenizer is read; one that is not read is a UserError."""
    if name in UNREAD:
        raise UserError(f"a tokenizer of {name} is not read: {UNREAD[name]}")
    if name not in READERS:
        raise UserError(f"those of {name} models are not read; read are those of {_known()}")
    named = folder.tokenizer_class
    if name in CLASSES and named in GENERAL and folder.has(JSON):
        return READERS[name] if name in PIECES_FIRST else read_pipeline
    if name in CLASSES and named and named not in CLASSES[name]:
        read = ", ".join((*CLASSES[name], *GENERAL))
        raise UserError(f"its class is {named}; read are, for {name}, {read}")
    return READERS[name]


def _known() -> str:
    return ", ".join(READERS)
