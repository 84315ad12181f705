"""Text as the ids of a Whisper's vocabulary, and back: byte-level BPE of GPT-2.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2.
Of a tokenizer's files the pieces and the merges are read. What stands for something else than text
follows from the vocabulary's size (tokens.py): files may lack the timestamps, or spell some names
as they once were.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training_recipe.speech.tokens import SECONDS_EACH, TIMESTAMPS, SpeechTokens
from training_recipe.text.tokenizers_kinds import REPLACEMENT, read_merges
from training_recipe.text.vocabulary_kinds import without_surrogates
from transformer_spec import Faults, UserError
from transformer_spec.errors import system_fault
from transformer_spec.json_text import parse_json

TOKENIZER, VOCABULARY, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
ADDED = "added_tokens.json"
FILES = (TOKENIZER, VOCABULARY, MERGES, ADDED)
# The first merge of GPT-2, which older files of the multilingual models lack: words such as " the"
# are made of what it makes.
FIRST_MERGE = ("Ġ", "t")
REPAIRED = (
    "{name} lacks the first merge of GPT-2 ('Ġ t'), without which 1,169 tokens such as ' the' are "
    "never made of a text; it is put back"
)
OLD_SPELLINGS = {"<|iw|>": "<|he|>", "<|jv|>": "<|jw|>", "<|nocaptions|>": "<|nospeech|>"}
SPECIAL = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {
    "special": True
}
Merge = tuple[str, str]


class SpeechTokenizer:
    """What cuts texts into ids of a vocabulary and joins them; ``tokens`` are those of no text.

    ``pieces`` maps spellings to ids, ``merges`` are all of them, ``notes`` say what was repaired.
    """

    def __init__(
        self, pieces: Mapping[str, int], merges: Sequence[Merge], tokens: SpeechTokens, label: str
    ) -> None:
        whole = with_first_merge(merges)
        self.tokens = tokens
        self.pieces = dict(pieces)
        self.merges = whole
        self.notes = [] if len(whole) == len(merges) else [REPAIRED.format(name=label)]
        text = {piece: index for piece, index in pieces.items() if index < tokens.end}
        try:
            self._tokenizer = _built(text, whole)
        except Exception as error:  # the library has no exception of its own
            raise UserError(f"the pieces and merges of {label} do not fit: {error}") from None

    @classmethod
    def load(cls, folder: Path, vocab_size: int) -> SpeechTokenizer:
        """That of a folder: tokenizer.json, else vocab.json and merges.txt.

        None of them, damaged ones, and those of another vocabulary are a UserError.
        """
        tokens = SpeechTokens.of(vocab_size)
        label, pieces, merges = _read(Path(folder))
        _check(label, pieces, tokens)
        return cls(pieces, merges, tokens, label)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; names of special tokens in it are text like any other."""
        whole = without_surrogates(text, REPLACEMENT)
        return self._tokenizer.encode(whole, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; those of no text are passed over, bytes of no character are U+FFFD."""
        text = [index for index in ids if 0 <= index < self.tokens.end]
        return self._tokenizer.decode(text, skip_special_tokens=False)

    def spelled(self) -> list[str]:
        """How every token of the vocabulary is spelled, by its id; timestamps included."""
        return spelled(self.tokens, self.pieces)


def spelled(tokens: SpeechTokens, pieces: Mapping[str, int]) -> list[str]:
    """How every token is spelled, by its id; one that is no piece of text is where it belongs."""
    found = {index: piece for piece, index in pieces.items()}
    named = {index: name for name, index in tokens.names().items()}
    first = tokens.first_timestamp
    times = {first + n: f"<|{n * SECONDS_EACH:.2f}|>" for n in range(TIMESTAMPS)}
    known = named | found | times
    return [known.get(index, f"<|token {index}|>") for index in range(tokens.vocab_size)]


def with_first_merge(merges: Sequence[Merge]) -> Sequence[Merge]:
    """The merges, the first one put back where others need what it makes and none makes it."""
    made = "".join(FIRST_MERGE)
    if FIRST_MERGE in merges or not any(made in pair for pair in merges):
        return merges
    return [FIRST_MERGE, *merges]


def repaired(name: str, data: bytes) -> bytes | None:
    """A tokenizer.json or merges.txt with what it lacks; None where nothing can be mended in it."""
    try:
        if name == MERGES:
            return _repaired_lines(data)
        content = parse_json(data.decode("utf-8")) if name == TOKENIZER else {}
        _, merges = _of_model(content) if content else ({}, [])
    except (ValueError, TypeError, KeyError):
        return None  # what reads it says what is wrong
    if len(with_first_merge(merges)) == len(merges):
        return None
    listed = content["model"]["merges"]
    first = " ".join(FIRST_MERGE) if isinstance(listed[0], str) else list(FIRST_MERGE)
    content["model"]["merges"] = [first, *listed]
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def _repaired_lines(data: bytes) -> bytes | None:
    merges = read_merges(data, MERGES)
    if len(with_first_merge(merges)) == len(merges):
        return None
    heading, newline, rest = data.partition(b"\n")
    before, after = (heading + newline, rest) if heading.startswith(b"#version") else (b"", data)
    return before + " ".join(FIRST_MERGE).encode() + b"\n" + after


def tokenizer_json(tokenizer: SpeechTokenizer) -> str:
    """A tokenizer.json of the pieces and merges, in which timestamps have their names."""
    end = tokenizer.tokens.end
    added = enumerate(tokenizer.spelled()[end:], end)
    text = {piece: index for piece, index in tokenizer.pieces.items() if index < end}
    plain = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    content = {
        "version": "1.0",
        "added_tokens": [{"id": index, "content": name} | SPECIAL for index, name in added],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel"} | plain,
        "post_processor": None,
        "decoder": {"type": "ByteLevel"} | plain,
        "model": {
            "type": "BPE",
            "vocab": text,
            "merges": [" ".join(pair) for pair in tokenizer.merges],
        },
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _built(pieces: dict[str, int], merges: Sequence[Merge]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(pieces, list(merges), fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def _read(folder: Path) -> tuple[str, dict[str, int], list[Merge]]:
    """Whose files, the pieces and the merges of a folder."""
    place = folder / TOKENIZER
    try:
        if place.is_file():
            content = parse_json(place.read_text(encoding="utf-8"))
            pieces, merges = _of_model(content)
            return str(place), pieces, merges
        place = folder / VOCABULARY
        if not (place.is_file() and (folder / MERGES).is_file()):
            raise UserError(f"{folder} has no {TOKENIZER}, and not both {VOCABULARY} and {MERGES}")
        pieces = _numbered(parse_json(place.read_text(encoding="utf-8")))
        if (folder / ADDED).is_file():
            place = folder / ADDED
            pieces |= _numbered(parse_json(place.read_text(encoding="utf-8")))
        place = folder / MERGES
        return str(place), pieces, read_merges(place.read_bytes(), MERGES)
    except OSError as error:
        raise UserError(system_fault(error)) from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{place} is damaged, or no tokenizer of Whisper's: {error}") from error


def _of_model(content: Any) -> tuple[dict[str, int], list[Merge]]:
    """Pieces, those that were added among them, and merges of a tokenizer.json."""
    model = content["model"]
    kind, before = model.get("type"), content.get("pre_tokenizer") or {}
    if kind not in ("BPE", None) or before.get("type") != "ByteLevel":
        raise ValueError(f"its model is {kind!r} of {before.get('type')!r}, not BPE of ByteLevel")
    merges = [_pair(merge) for merge in model["merges"]]
    added = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
    return _numbered(model["vocab"]) | _numbered(added), merges


def _pair(merge: Any) -> Merge:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, list) or len(parts) != 2 or not all(type(p) is str for p in parts):
        raise ValueError(f"{merge!r} is no merge of two pieces")
    return parts[0], parts[1]


def _numbered(content: Any) -> dict[str, int]:
    if not isinstance(content, dict) or not all(type(n) is int for n in content.values()):
        raise ValueError("its pieces have no numbers")
    return content


def _check(label: str, pieces: Mapping[str, int], tokens: SpeechTokens) -> None:
    """What is spelled as a token that is no text has that token's number."""
    expected = tokens.names() | {f"<|{0:.2f}|>": tokens.first_timestamp}
    faults = Faults()
    for piece, index in pieces.items():
        wanted = expected.get(OLD_SPELLINGS.get(piece, piece), index)
        if wanted != index:
            told = f"{piece} is {index}, and {wanted} among {tokens.vocab_size} tokens"
            faults.add(told, "are other tokens")
    faults.raise_if_any(
        f"{label} is of another vocabulary than the model, which has {tokens.vocab_size} tokens"
    )
