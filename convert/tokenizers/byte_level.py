"""BART and Blenderbot: byte-level BPE in tokenizer.json, or in vocab.json and merges.txt."""

from __future__ import annotations

from collections.abc import Collection

from convert.tokenizers.folder import JSON, Folder
from convert.tokenizers.pairs import Pair
from convert.tokenizers.pipelines import json_table
from convert.tokenizers.special import ROLES, Tokens, tokens_of
from training_recipe.text.number_tables import read_table
from training_recipe.text.tokenizers_kinds import ByteLevelBPE, TokenizerJson, read_merges
from transformer_spec import UserError

TABLE, MERGES = "vocab.json", "merges.txt"
NEVER_MADE = 16  # such as <|endoftext|> and words made up to round a table's size
NAMED = {**ROLES, "mask_token": "<mask>"}


def read_bart(folder: Folder) -> Pair:
    """A text stands between <s> and </s>."""
    return _read(folder, begins=True, spaced=False)


def read_blenderbot(folder: Folder) -> Pair:
    """A text begins with a space and ends with </s>."""
    return _read(folder, begins=False, spaced=True)


def _read(folder: Folder, *, begins: bool, spaced: bool) -> Pair:
    if folder.has(JSON):
        return _of_json(folder, begins)
    return _of_merges(folder, begins, folder.about.get("add_prefix_space", spaced) is True)


def _frame(tokens: Tokens, begins: bool) -> dict[str, tuple[int, ...]]:
    before = (tokens.roles["bos_token"],) if begins else ()
    return {"before": before, "after": (tokens.roles["eos_token"],)}


def _of_json(folder: Folder, begins: bool) -> Pair:
    tokens = tokens_of(folder, json_table(folder), roles=NAMED)
    tokens = Tokens(tokens.roles, tokens.special, {})
    conventions = tokens.conventions(folder, None, **_frame(tokens, begins), clean_up=False)
    files, how = {JSON: folder.read(JSON)}, {"tokenizer": JSON}
    return TokenizerJson(conventions, files, how), TokenizerJson(conventions, files, how)


def _of_merges(folder: Folder, begins: bool, spaced: bool) -> Pair:
    files = folder.read_all((TABLE, MERGES))
    table = read_table({"file": TABLE, "format": "json"}, None, files, ())
    tokens = tokens_of(folder, table, roles=NAMED)
    _check_merges(files[MERGES], table.keys() - tokens.special.keys())
    conventions = tokens.conventions(folder, None, **_frame(tokens, begins), clean_up=False)
    how = {"vocabulary": TABLE, "merges": MERGES, "prefix_space": spaced}
    return ByteLevelBPE(conventions, files, how), ByteLevelBPE(conventions, files, how)


def _check_merges(data: bytes, pieces: Collection[str]) -> None:
    """Raise a UserError where merges are missing: all pieces of several bytes but few are made."""
    made = {left + right for left, right in read_merges(data, MERGES)}
    never = sorted(piece for piece in pieces if len(piece) > 1 and piece not in made)
    if len(never) > NEVER_MADE:
        some = ", ".join(map(repr, never[:3]))
        raise UserError(
            f"{MERGES} makes {len(never):,} of the {len(pieces):,} pieces of {TABLE} in no way "
            f"({some}, ...): it is cut short, or another model's"
        )
