"""mBART, mBART-50 and NLLB: a sentencepiece model's pieces in their order.

fairseq's four come first, then the pieces but the model's own three, the languages and <mask>.
Where the model's file is gone, tokenizer.json is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convert.tokenizers.folder import JSON, Folder
from convert.tokenizers.language_codes import MBART, MBART50, NLLB
from convert.tokenizers.pairs import Pair
from convert.tokenizers.special import (
    ROLES,
    Tokens,
    source_language,
    target_language,
    tokens_of,
)
from training_recipe.text.conventions import LANGUAGE, Conventions
from training_recipe.text.sentencepiece_table import SentencePieceTable
from training_recipe.text.tokenizers_kinds import TokenizerJson
from transformer_spec import UserError

MODEL, MASK = "sentencepiece.bpe.model", "<mask>"
FIRST, OWN = ("<s>", "<pad>", "</s>", "<unk>"), 3
NAMED = {**ROLES, "mask_token": MASK}
FAIRSEQ = "([a-z]{2,3}_[A-Z]{2})"  # ar_AR
FLORES = "([a-z]{3}_[A-Z][a-z]{3})"  # ace_Arab


def read_mbart(folder: Folder) -> Pair:
    """mBART has its language behind a text, mBART-50 in front of it."""
    if _is_mbart50(folder):
        return _read(folder, MBART50, FAIRSEQ, "before")
    return _read(folder, MBART, FAIRSEQ, "after")


def _is_mbart50(folder: Folder) -> bool:
    """By the class of its tokenizer; where none is named, by the languages it has."""
    if folder.tokenizer_class in ("MBartTokenizer", "MBart50Tokenizer"):
        return folder.tokenizer_class == "MBart50Tokenizer"
    if folder.tokenizer_class:
        raise UserError(f"tokenizers of the class {folder.tokenizer_class} are not read for mBART")
    known = {*folder.listed, *folder.numbered}
    if known & set(MBART50):
        return bool(known & set(MBART50) - set(MBART))
    pieces = len(_pieces(folder.read(MODEL))) if folder.has(MODEL) else 0
    most = folder.config.source_vocab_size
    return pieces + 1 + len(MBART50) + 1 <= most


def read_nllb(folder: Folder) -> Pair:
    legacy = folder.about.get("legacy_behaviour") is True
    return _read(folder, NLLB, FLORES, "after" if legacy else "before")


def _read(folder: Folder, codes: Sequence[str], pattern: str, place: str) -> Pair:
    return (_of_model if folder.has(MODEL) or not folder.has(JSON) else _of_json)(
        folder, codes, pattern, place
    )


def _pieces(model: bytes) -> list[str]:
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_proto=model)  # pyright: ignore[reportCallIssue]
    except RuntimeError:
        raise UserError(f"{MODEL} is cut short, damaged, or no sentencepiece model") from None
    return [processor.id_to_piece(number) for number in range(processor.get_piece_size())]


def _of_model(folder: Folder, codes: Sequence[str], pattern: str, place: str) -> Pair:
    files = {MODEL: folder.read(MODEL)}
    ordered = [*FIRST, *_pieces(files[MODEL])[OWN:]]
    table = {piece: index for index, piece in enumerate(ordered)}
    beyond = {token: len(ordered) + n for n, token in enumerate([*codes, MASK])}
    tokens = tokens_of(folder, table, beyond=beyond, roles=NAMED, language=pattern)
    how = {"model": MODEL, "first": list(FIRST), "table": {"from": OWN}, "joined": True}
    source, target = _both(folder, tokens, place)
    return SentencePieceTable(source, files, how), SentencePieceTable(target, files, how)


def _of_json(folder: Folder, codes: Sequence[str], pattern: str, place: str) -> Pair:
    tokens = tokens_of(folder, json_table(folder), roles=NAMED, language=pattern)
    # Tokens that were added as text are cut out by the file's own pipeline.
    tokens = Tokens(tokens.roles, tokens.special, {}, tokens.languages)
    files, how = {JSON: folder.read(JSON)}, {"tokenizer": JSON}
    source, target = _both(folder, tokens, place)
    return TokenizerJson(source, files, how), TokenizerJson(target, files, how)


def json_table(folder: Folder) -> dict[str, int]:
    """Piece -> id of a tokenizer.json's model."""
    model = folder.read_object(JSON).get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict) and all(type(index) is int for index in vocab.values()):
        return vocab
    if isinstance(vocab, list) and all(isinstance(row, list) and row for row in vocab):
        return {str(row[0]): index for index, row in enumerate(vocab)}
    raise UserError(f"{JSON} has no vocabulary")


def _both(folder: Folder, tokens: Tokens, place: str) -> tuple[Conventions, Conventions]:
    end = (tokens.roles["eos_token"],)
    frame: dict[str, Any] = {"before": (LANGUAGE,), "after": end}
    if place == "after":
        frame = {"after": (*end, LANGUAGE)}
    # BPE is cleaned by no version of the library that has tokenizers of its own for it.
    source = tokens.conventions(folder, source_language(folder, tokens), **frame)
    starts = folder.config.decoder_start_id in tokens.languages.values()
    target = tokens.conventions(
        folder, target_language(folder, tokens), **frame, starts_with_language=starts
    )
    return source, target
