"""tokenizer.json alone: the library ``tokenizers`` reads the whole way from text to ids in it."""

from __future__ import annotations

from typing import Any

from convert.tokenizers.folder import JSON, Folder
from convert.tokenizers.pairs import Pair
from convert.tokenizers.special import ROLES, Tokens, tokens_of
from training_recipe.text.tokenizers_kinds import TokenizerJson
from transformer_spec import UserError

GENERAL = ("PreTrainedTokenizer", "TokenizersBackend")


def json_table(folder: Folder) -> dict[str, int]:
    """Piece -> id of a tokenizer.json's model."""
    model = folder.pipeline.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict) and all(type(index) is int for index in vocab.values()):
        return vocab
    if isinstance(vocab, list) and all(isinstance(row, list) and row for row in vocab):
        return {str(row[0]): index for index, row in enumerate(vocab)}
    raise UserError(f"{JSON} has no vocabulary")


def read_pipeline(folder: Folder) -> Pair:
    """A tokenizer of nobody's class: what stands around a text is what the file puts there."""
    tokens = tokens_of(folder, json_table(folder), roles=ROLES)
    files, how = {JSON: folder.read(JSON)}, {"tokenizer": JSON}
    before, after = _frame(files[JSON])
    clean_up = {} if _is_cleaned(folder) else {"clean_up": False}
    told = Tokens(tokens.roles, tokens.special, {})
    conventions = told.conventions(folder, None, before=before, after=after, **clean_up)
    return TokenizerJson(conventions, files, how), TokenizerJson(conventions, files, how)


def _is_cleaned(folder: Folder) -> bool:
    """The library cleans no text of BPE, whatever the settings say."""
    model = folder.pipeline.get("model")
    return isinstance(model, dict) and model.get("type") != "BPE"


def _frame(data: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the file's own template puts before and after a text."""
    from tokenizers import Tokenizer

    try:
        tokenizer: Any = Tokenizer.from_str(data.decode("utf-8"))
        whole = tokenizer.encode("a").ids
        inner = tokenizer.encode("a", add_special_tokens=False).ids
    except Exception as error:  # the library has no exception of its own
        raise UserError(f"{JSON} is cut short, damaged or too new: {error}") from None
    for start in range(len(whole) - len(inner) + 1):
        if whole[start : start + len(inner)] == inner:
            return tuple(whole[:start]), tuple(whole[start + len(inner) :])
    raise UserError(f"the template of {JSON} does more than put tokens around a text")
