"""mBART, mBART-50 and NLLB: a sentencepiece model's pieces in their order.

fairseq's four come first, then the pieces but the model's own three, the languages and <mask>.
Where the model's file is gone, tokenizer.json is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convert.tokenizers.folder import JSON, Folder
from convert.tokenizers.language_codes import MBART, MBART50, NLLB
from convert.tokenizers.pairs import Pair
from convert.tokenizers.pipelines import json_table
from convert.tokenizers.special import (
    ROLES,
    Tokens,
    source_language,
    target_language,
    tokens_of,
)
from training_recipe.text.conventions import LANGUAGE, Conventions
from training_recipe.text.sentencepiece_table import SentencePieceTable, sentencepiece_processor
from training_recipe.text.tokenizers_kinds import TokenizerJson

MODEL, MASK = "sentencepiece.bpe.model", "<mask>"
FIRST, OWN = ("<s>", "<pad>", "</s>", "<unk>"), 3
NAMED = {**ROLES, "mask_token": MASK}
Sides = tuple[Conventions, Conventions]
# Where a language stands: in front of a text, or behind its end. Training mBART moves the last id
# to the front, so that the decoder starts with the language; training NLLB does not.
FRONT, TURNED, BEHIND = "in front", "behind and first", "behind"
FAIRSEQ = "([a-z]{2,3}_[A-Z]{2})"  # ar_AR
FLORES = "([a-z]{3}_[A-Z][a-z]{3})"  # ace_Arab


def read_mbart(folder: Folder) -> Pair:
    """mBART has its language behind a text, mBART-50 in front of it."""
    if _is_mbart50(folder):
        return _read(folder, MBART50, FAIRSEQ, FRONT)
    return _read(folder, MBART, FAIRSEQ, TURNED)


def _is_mbart50(folder: Folder) -> bool:
    """By the class of its tokenizer; where none is named, by the languages it has."""
    if folder.tokenizer_class:
        return folder.tokenizer_class == "MBart50Tokenizer"
    known = {*folder.listed, *folder.numbered}
    if known & set(MBART50):
        return bool(known & set(MBART50) - set(MBART))
    pieces = len(pieces_of({MODEL: folder.read(MODEL)}, MODEL)) if folder.has(MODEL) else 0
    most = folder.config.source_vocab_size
    return pieces + 1 + len(MBART50) + 1 <= most


def read_nllb(folder: Folder) -> Pair:
    legacy = folder.about.get("legacy_behaviour") is True
    return _read(folder, NLLB, FLORES, BEHIND if legacy else FRONT)


def _read(folder: Folder, codes: Sequence[str], pattern: str, place: str) -> Pair:
    return (_of_model if folder.has(MODEL) or not folder.has(JSON) else _of_json)(
        folder, codes, pattern, place
    )


def pieces_of(files: Mapping[str, bytes], name: str) -> list[str]:
    """All pieces of a sentencepiece model, in its order."""
    processor = sentencepiece_processor(files, name)
    return [processor.id_to_piece(number) for number in range(processor.get_piece_size())]


def _of_model(folder: Folder, codes: Sequence[str], pattern: str, place: str) -> Pair:
    files = {MODEL: folder.read(MODEL)}
    ordered = [*FIRST, *pieces_of(files, MODEL)[OWN:]]
    table = {piece: index for index, piece in enumerate(ordered)}
    beyond = {token: len(ordered) + n for n, token in enumerate([*codes, MASK])}
    tokens = tokens_of(folder, table, beyond=beyond, roles=NAMED, language=pattern)
    if tokens.added and folder.has(JSON):  # which says what becomes of the spaces beside them
        return _of_json(folder, codes, pattern, place)
    how = {"model": MODEL, "first": list(FIRST), "table": {"from": OWN}, "joined": True}
    source, target = both_sides(folder, tokens, place)
    return SentencePieceTable(source, files, how), SentencePieceTable(target, files, how)


def _of_json(folder: Folder, codes: Sequence[str], pattern: str, place: str) -> Pair:
    tokens = tokens_of(folder, json_table(folder), roles=NAMED, language=pattern)
    # Tokens that were added as text are cut out by the file's own pipeline.
    tokens = Tokens(tokens.roles, tokens.special, {}, tokens.languages)
    files, how = {JSON: folder.read(JSON)}, {"tokenizer": JSON}
    source, target = both_sides(folder, tokens, place)
    return TokenizerJson(source, files, how), TokenizerJson(target, files, how)


def both_sides(folder: Folder, tokens: Tokens, place: str, **more: Any) -> Sides:
    """The conventions of source and target, with the language in one of three places."""
    end = (tokens.roles["eos_token"],)
    frame = {"before": (LANGUAGE,), "after": end} if place == FRONT else {"after": (*end, LANGUAGE)}
    source = tokens.conventions(folder, source_language(folder, tokens), **frame, **more)
    target = tokens.conventions(
        folder,
        target_language(folder, tokens),
        **frame,
        starts_with_language=place == TURNED,
        **more,
    )
    return source, target
