"""T5, mT5, UMT5 and MADLAD: the pieces of a sentencepiece model by their own ids, and sentinels.

ByT5 has bytes and no file of its own, CodeT5 the byte-level BPE of BART.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from convert.tokenizers.byte_level import TABLE, read_bart
from convert.tokenizers.fairseq_order import pieces_of
from convert.tokenizers.folder import CONFIG, JSON, Folder
from convert.tokenizers.pairs import Pair
from convert.tokenizers.pipelines import read_pipeline
from convert.tokenizers.special import SENTINEL, tokens_of
from training_recipe.text.byte_vocabulary import BYTES, SPECIAL, ByteVocabulary
from training_recipe.text.sentencepiece_table import sentencepiece_processor
from training_recipe.text.sentinel_pieces import SentinelPieces
from transformer_spec import UserError

MODEL, BYT5, ROBERTA = "spiece.model", "ByT5Tokenizer", "RobertaTokenizer"
NAMED = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
SENTINELS, OF_BYTES = 100, 125
MARKS = ("<2", ">")
SPOKEN = re.compile(r"<2([a-z]\w*)>")


def read_t5(folder: Folder) -> Pair:
    """By the class of its tokenizer and the files; a text ends with </s>."""
    if folder.tokenizer_class == BYT5:
        return _of_bytes(folder)
    if folder.has(MODEL):
        return _of_pieces(folder)
    if folder.tokenizer_class == ROBERTA or folder.has(TABLE):
        return read_bart(folder)
    if folder.has(JSON):
        return read_pipeline(folder)
    raise UserError(f"{MODEL} is missing, and {JSON}, which may stand for it, is too")


def _of_pieces(folder: Folder) -> Pair:
    files = {MODEL: folder.read(MODEL)}
    pieces = pieces_of(files, MODEL)
    table = {piece: number for number, piece in enumerate(pieces)}
    inside = any(map(SENTINEL.fullmatch, pieces))
    count = 0 if inside else _count(folder, SENTINELS)
    beyond = {_sentinel(n): len(pieces) + count - 1 - n for n in range(count)}
    tokens = tokens_of(folder, table, beyond=beyond, roles=_names(folder, files, pieces))
    end, how = (tokens.roles["eos_token"],), {"model": MODEL, "table": {"from": 0}}
    languages = _languages(table)
    told = {"languages": languages, "marks": MARKS} if languages else {}
    source, target = (tokens.conventions(folder, None, after=end, **more) for more in (told, {}))
    return SentinelPieces(source, files, how), SentinelPieces(target, files, how)


def _names(folder: Folder, files: Mapping[str, bytes], pieces: Sequence[str]) -> dict[str, str]:
    """How the special tokens are spelled where no file says so: as the model has them."""
    own = sentencepiece_processor(files, MODEL)
    ids: dict[str, int] = {
        "pad_token": own.pad_id(), "eos_token": own.eos_id(), "unk_token": own.unk_id()
    }  # fmt: skip
    if ids["pad_token"] < 0 <= folder.config.pad_id < len(pieces):
        ids["pad_token"] = folder.config.pad_id
    return {role: pieces[n] if n >= 0 else NAMED[role] for role, n in ids.items()}


def _languages(table: Mapping[str, int]) -> dict[str, int]:
    """Codes of the languages whose tokens are pieces; one alone is none to choose."""
    found = {code[1]: n for piece, n in table.items() if (code := SPOKEN.fullmatch(piece))}
    return found if len(found) > 1 else {}


def _of_bytes(folder: Folder) -> Pair:
    table = {folder.name_of(role, name): n for n, (role, name) in enumerate(NAMED.items())}
    beyond = {_sentinel(n): SPECIAL + BYTES + n for n in range(_count(folder, OF_BYTES))}
    tokens = tokens_of(folder, table, beyond=beyond, roles=NAMED)
    conventions = tokens.conventions(folder, None, after=(tokens.roles["eos_token"],))
    return ByteVocabulary(conventions, {}, {}), ByteVocabulary(conventions, {}, {})


def _sentinel(number: int) -> str:
    return f"<extra_id_{number}>"


def _count(folder: Folder, usual: int) -> int:
    """How many sentinels there are: those that are listed, or as many as the settings say."""
    given = folder.about.get("extra_ids", usual)
    listed = sum(map(bool, map(SENTINEL.fullmatch, folder.listed)))
    if type(given) is not int or not 0 <= given < 2**16:
        raise UserError(f"extra_ids of its {CONFIG} is {given!r}, which is no number of tokens")
    if listed and "extra_ids" in folder.about and given not in (0, listed):
        raise UserError(
            f"extra_ids of its {CONFIG} is {given}, and the sentinels that are listed "
            f"there are {listed}; take one of the two away"
        )
    return listed or given
