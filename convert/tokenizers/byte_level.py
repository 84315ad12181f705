"""BART: byte-level BPE in tokenizer.json, or in vocab.json and merges.txt."""

from __future__ import annotations

from convert.tokenizers.fairseq_order import json_table
from convert.tokenizers.folder import JSON, Folder
from convert.tokenizers.pairs import Pair
from convert.tokenizers.special import ROLES, Tokens, tokens_of
from training_recipe.text.number_tables import read_table
from training_recipe.text.tokenizers_kinds import ByteLevelBPE, TokenizerJson

TABLE, MERGES = "vocab.json", "merges.txt"
NAMED = {**ROLES, "mask_token": "<mask>"}


def read_bart(folder: Folder) -> Pair:
    """The vocabularies of a folder; a ValueError says what is wrong with it."""
    return _of_json(folder) if folder.has(JSON) else _of_merges(folder)


def _frame(tokens: Tokens) -> dict[str, tuple[int]]:
    return {"before": (tokens.roles["bos_token"],), "after": (tokens.roles["eos_token"],)}


def _of_json(folder: Folder) -> Pair:
    tokens = tokens_of(folder, json_table(folder), roles=NAMED)
    tokens = Tokens(tokens.roles, tokens.special, {})
    conventions = tokens.conventions(folder, None, **_frame(tokens), clean_up=False)
    files, how = {JSON: folder.read(JSON)}, {"tokenizer": JSON}
    return TokenizerJson(conventions, files, how), TokenizerJson(conventions, files, how)


def _of_merges(folder: Folder) -> Pair:
    files = folder.read_all((TABLE, MERGES))
    table = read_table({"file": TABLE, "format": "json"}, None, files, ())
    tokens = tokens_of(folder, table, roles=NAMED)
    conventions = tokens.conventions(folder, None, **_frame(tokens), clean_up=False)
    spaced = folder.about.get("add_prefix_space") is True
    how = {"vocabulary": TABLE, "merges": MERGES, "prefix_space": spaced}
    return ByteLevelBPE(conventions, files, how), ByteLevelBPE(conventions, files, how)
