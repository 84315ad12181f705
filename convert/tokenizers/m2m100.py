"""M2M100: vocab.json numbers the pieces of one sentencepiece model; languages follow it."""

from __future__ import annotations

from convert.tokenizers.fairseq_order import MODEL
from convert.tokenizers.folder import Folder
from convert.tokenizers.language_codes import M2M100, WMT21
from convert.tokenizers.pairs import Pair, check_pieces
from convert.tokenizers.special import source_language, target_language, tokens_of
from training_recipe.text.conventions import LANGUAGE
from training_recipe.text.number_tables import read_table
from training_recipe.text.sentencepiece_table import SentencePieceTable

TABLE = "vocab.json"
CODES = {"m2m100": M2M100, "wmt21": WMT21}
MARKED = r"__([\w-]+)__"


def read_m2m100(folder: Folder) -> Pair:
    """The vocabularies of a folder; a ValueError says what is wrong with it."""
    files = folder.read_all((MODEL, TABLE))
    how = {"model": MODEL, "table": {"file": TABLE, "format": "json"}}
    table = read_table(how["table"], None, files, ())
    codes = CODES.get(folder.about.get("language_codes", "m2m100"), M2M100)
    beyond = {f"__{code}__": len(table) + number for number, code in enumerate(codes)}
    tokens = tokens_of(folder, table, beyond=beyond, language=MARKED)
    frame = {"before": (LANGUAGE,), "after": (tokens.roles["eos_token"],)}
    chosen = source_language(folder, tokens), target_language(folder, tokens)
    source, target = (
        SentencePieceTable(tokens.conventions(folder, code, **frame), files, how) for code in chosen
    )
    check_pieces(source, MODEL, TABLE)
    return source, target
