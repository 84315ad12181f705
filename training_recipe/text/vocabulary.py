"""Vocabularies: text to ids and back; how one is built from text and read from a run folder."""

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from training_recipe.sound.sound_files import SoundFiles
from training_recipe.speech.vocabulary import SpeechVocabulary
from training_recipe.text.byte_vocabulary import ByteVocabulary
from training_recipe.text.frames import BOS_ID, EOS_ID, PAD_ID, UNK_ID, Frame
from training_recipe.text.sentencepiece_table import SentencePieceTable
from training_recipe.text.sentinel_pieces import SentinelPieces
from training_recipe.text.tokenizers_kinds import ByteLevelBPE, TokenizerJson
from training_recipe.text.vocabulary_kinds import (
    FORMAT_VERSION,
    SPECIAL_PIECES,
    CharacterVocabulary,
    SentencePieceVocabulary,
    Side,
    Vocabulary,
    WhitespaceVocabulary,
)
from transformer_spec.errors import UserError
from transformer_spec.json_text import read_json_file

__all__ = [
    "BOS_ID",
    "EOS_ID",
    "PAD_ID",
    "UNK_ID",
    "CharacterVocabulary",
    "Frame",
    "SentencePieceVocabulary",
    "Vocabulary",
    "WhitespaceVocabulary",
    "build_vocabulary",
    "load_vocabulary",
]

# Where all characters fill more than one in FEW of the pieces, the rarest, one in ten thousand of
# the running text, become unknown: a noisy corpus has many that occur once. Elsewhere none does.
CHARACTER_COVERAGE, FEW = 0.9999, 10
DEFAULT_SENTENCEPIECE_SIZE = 8000
SENTENCEPIECE_ALGORITHMS = ("unigram", "bpe")
VOCABULARY_KINDS = ("characters", "whitespace", "sentencepiece")
PUBLISHED = (
    *(SentencePieceTable, SentinelPieces, ByteLevelBPE, TokenizerJson, ByteVocabulary),
    *(SpeechVocabulary, SoundFiles),
)


def build_vocabulary(
    kind: str,
    texts: Iterable[str],
    size: int | None = None,
    side: str = "source",
    algorithm: str = "unigram",
) -> Vocabulary:
    """Build the vocabulary of some texts; for a shared one, pass the texts of both sides.

    ``size`` counts the four special ids. It is an upper limit for characters and words (None: no
    limit) and the exact size for sentencepiece (None: 8000, or what a small corpus supports).
    ``side`` only names the vocabulary in error messages. Raises UserError for an unknown kind, no
    text, or a size that does not fit.
    """
    if kind not in VOCABULARY_KINDS:
        allowed = ", ".join(VOCABULARY_KINDS)
        raise UserError(f"the {side} vocabulary cannot be {kind!r}; choose one of {allowed}")
    if size is not None and size <= len(SPECIAL_PIECES):
        raise UserError(
            f"the {side} vocabulary cannot have size {size}: {len(SPECIAL_PIECES)} ids are special "
            f"({' '.join(SPECIAL_PIECES)}); give a larger size"
        )
    if kind == "sentencepiece":
        return _train_sentencepiece(texts, size, side, algorithm)
    listed = CharacterVocabulary if kind == "characters" else WhitespaceVocabulary
    vocabulary = listed.build(texts, size)
    if not vocabulary.pieces:
        raise UserError(f"there is no text to build the {side} vocabulary from")
    return vocabulary


def _train_sentencepiece(
    texts: Iterable[str], size: int | None, side: str, algorithm: str
) -> SentencePieceVocabulary:
    if algorithm not in SENTENCEPIECE_ALGORITHMS:
        allowed = ", ".join(SENTENCEPIECE_ALGORITHMS)
        raise UserError(f"sentencepiece has no algorithm {algorithm!r}; choose one of {allowed}")
    kept = [text for text in texts if text.strip()]
    if not kept:
        raise UserError(f"there is no text to build the {side} vocabulary from")
    pieces = size or DEFAULT_SENTENCEPIECE_SIZE
    coverage = _character_coverage(kept, pieces)  # on which depends how many pieces there can be
    while True:
        try:
            return SentencePieceVocabulary.build(kept, pieces, algorithm, coverage)
        except RuntimeError as error:
            message = str(error)
        most = _number(r"set it to a value <= (\d+)", message)
        if size is not None or most is None or most >= pieces:
            raise UserError(_sentencepiece_fault(message, most, pieces, side))
        pieces = most


def _character_coverage(texts: Collection[str], size: int) -> float:
    """The share of the running text whose characters a model of ``size`` pieces must know."""
    found = set[str]()
    for text in texts:
        found.update(text)
        if FEW * len(found) > size:
            return CHARACTER_COVERAGE
    return 1.0


def _number(pattern: str, message: str) -> int | None:
    found = re.search(pattern, message)
    return int(found[1]) if found else None


def _sentencepiece_fault(message: str, most: int | None, size: int, side: str) -> str:
    prefix = f"a {side} vocabulary of {size:,} sentencepiece pieces"
    least = _number(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if most is not None:
        return f"{prefix} is too large for the data, which supports at most {most:,}; give that"
    if least is not None:
        return (
            f"{prefix} is too small: the special ids and the characters of the text alone take "
            f"{least:,}; give more than that"
        )
    return f"{prefix} cannot be trained: {message}"


def load_vocabulary(folder: Path, side: Side) -> Vocabulary:
    """Read what ``save`` wrote; raises UserError for a missing or damaged file."""
    path = Path(folder) / f"{side}.json"
    try:
        return _read_vocabulary(path)
    except OSError as error:
        said = error.strerror or str(error)
        its_own = error.filename in (None, str(path))
        reason = said if its_own else f"{error.filename}: {said}"
    except json.JSONDecodeError as error:
        reason = f"it is cut short or damaged at line {error.lineno} ({error.msg})"
    except ValueError as error:
        reason = str(error)
    raise UserError(f"cannot read the {side} vocabulary {path}: {reason}")


def _read_vocabulary(path: Path) -> Vocabulary:
    content = read_json_file(path)
    if not isinstance(content, dict):
        raise ValueError("it is not a vocabulary file")
    if content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version")
        raise ValueError(f"its format version is {found}; this program reads {FORMAT_VERSION}")
    if content.get("kind") == SentencePieceVocabulary.kind:
        return SentencePieceVocabulary.read(content, path.parent)
    for published in PUBLISHED:
        if content.get("kind") == published.kind:
            return published.read(content, path.parent)
    for listed in (CharacterVocabulary, WhitespaceVocabulary):
        if content.get("kind") == listed.kind:
            return listed.read(content)
    allowed = ", ".join((*VOCABULARY_KINDS, *(published.kind for published in PUBLISHED)))
    raise ValueError(f"its kind is {content.get('kind')!r}, which is none of {allowed}")
