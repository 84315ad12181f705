"""Pegasus and PLBart: a sentencepiece model's pieces in their order, behind tokens of their own."""

from __future__ import annotations

from convert.tokenizers.fairseq_order import (
    FIRST,
    MASK,
    MODEL,
    NAMED,
    OWN,
    TURNED,
    both_sides,
    pieces_of,
)
from convert.tokenizers.folder import Folder
from convert.tokenizers.pairs import Pair
from convert.tokenizers.special import tokens_of
from training_recipe.text.sentencepiece_table import SentencePieceTable
from transformer_spec import UserError

PEGASUS, OFFSET = "spiece.model", 103
PEGASUS_MASKS = ("<mask_1>", "<mask_2>")
PEGASUS_NAMED = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"}
PLBART = {
    "base": ("java", "python", "en_XX"),
    "multi": ("java", "python", "en_XX", "javascript", "php", "ruby", "go"),
}


def read_pegasus(folder: Folder) -> Pair:
    """Padding, the end, two masks and unused tokens come before the model's pieces but two."""
    offset = folder.about.get("offset", OFFSET)
    if type(offset) is not int or not 2 <= offset < 2**16:
        raise UserError(f"offset of its tokenizer_config.json is {offset!r}, which is none")
    files = {PEGASUS: folder.read(PEGASUS)}
    unused = [f"<unk_{number}>" for number in range(2, offset)]
    first = ["<pad>", "</s>", *PEGASUS_MASKS, *unused]
    table = {piece: n for n, piece in enumerate([*first, *pieces_of(files, PEGASUS)[2:]])}
    own = {piece: table[piece] for piece in first}
    tokens = tokens_of(folder, table, beyond=own, roles=PEGASUS_NAMED)
    conventions = tokens.conventions(folder, None, after=(tokens.roles["eos_token"],))
    how = {"model": PEGASUS, "first": first, "table": {"from": 2}, "joined": True}
    return SentencePieceTable(conventions, files, how), SentencePieceTable(conventions, files, how)


def read_plbart(folder: Folder) -> Pair:
    """As mBART, with programming languages; only the models of three have <mask>."""
    known = folder.about.get("language_codes", "base")
    if known not in PLBART:
        raise UserError(f"language_codes is {known!r}; known are {' and '.join(PLBART)}")
    files = {MODEL: folder.read(MODEL)}
    ordered = [*FIRST, *pieces_of(files, MODEL)[OWN:]]
    own = [f"__{code}__" for code in PLBART[known]] + ([MASK] if known == "base" else [])
    beyond = {token: len(ordered) + number for number, token in enumerate(own)}
    table = {piece: index for index, piece in enumerate(ordered)}
    tokens = tokens_of(folder, table, beyond=beyond, roles=NAMED, language=r"__(\w+)__")
    how = {"model": MODEL, "first": list(FIRST), "table": {"from": OWN}}
    cleaned = folder.about.get("clean_up_tokenization_spaces", True) is True
    source, target = both_sides(folder, tokens, TURNED, clean_up=cleaned)
    return SentencePieceTable(source, files, how), SentencePieceTable(target, files, how)
