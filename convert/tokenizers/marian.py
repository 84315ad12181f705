"""Marian of transformers: two sentencepiece models and one table of ids, or a table each.

A model of several target languages reads ``>>deu<<`` in front of a source. Punctuation stays as it
is: the library has Moses' rules for it, which its own cutting of texts does not call.
"""

from __future__ import annotations

from convert.tokenizers.folder import Folder
from convert.tokenizers.pairs import Pair, check_pieces
from convert.tokenizers.special import ROLES, Tokens, tokens_of
from training_recipe.text.number_tables import read_table
from training_recipe.text.sentencepiece_table import SentencePieceTable

SOURCE, TARGET, TABLE, TARGET_TABLE = "source.spm", "target.spm", "vocab.json", "target_vocab.json"
MARKS = (">>", "<<")
NAMED = {role: name for role, name in ROLES.items() if role != "bos_token"}


def read_marian(folder: Folder) -> Pair:
    """The vocabularies of a folder; a ValueError says what is wrong with it."""
    separate = folder.about.get("separate_vocabs") is True
    names = (SOURCE, TARGET, TABLE, *([TARGET_TABLE] if separate else []))
    files = folder.read_all(names)
    sides = ((SOURCE, TABLE), (TARGET, TARGET_TABLE if separate else TABLE))
    source, target = (_side(folder, files, *side, is_source=not n) for n, side in enumerate(sides))
    return source, target


def _side(
    folder: Folder, files: dict[str, bytes], model: str, table: str, *, is_source: bool
) -> SentencePieceTable:
    how = {"model": model, "table": {"file": table, "format": "json"}}
    numbers = read_table(how["table"], None, files, ())
    tokens = tokens_of(folder, numbers, roles=NAMED)
    codes = {
        piece.removeprefix(MARKS[0]).removesuffix(MARKS[1]): index
        for piece, index in numbers.items()
        if piece.startswith(MARKS[0]) and piece.endswith(MARKS[1])
    }
    told = Tokens(tokens.roles, tokens.special, tokens.added, codes if is_source else {})
    end = (tokens.roles["eos_token"],)
    conventions = told.conventions(folder, None, after=end, marks=MARKS if is_source else None)
    vocabulary = SentencePieceTable(conventions, {n: files[n] for n in (model, table)}, how)
    check_pieces(vocabulary, model, table)
    return vocabulary
