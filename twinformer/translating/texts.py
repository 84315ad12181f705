"""Texts in, texts out, around a backend's ``decode``: reading, encoding, batches, output lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from training_recipe.corpora.text_files import decode_utf8, read_lines, split_lines
from training_recipe.searching.batches import Decode, decode_all
from training_recipe.searching.search import Hypothesis, Search
from training_recipe.searching.workers import ONE_WORKER, Workers
from training_recipe.text.frames import Frame
from training_recipe.text.model_vocabularies import small_letters
from training_recipe.text.vocabulary import Vocabulary
from transformer_spec import TransformerConfig, UserError
from transformer_spec.errors import Faults

STANDARD_INPUT = "-"
BATCHES_OF_A_BLOCK = 32
LISTED_LINES = 100
SHOWN_NAMES = 5


@dataclass(frozen=True)
class Sources:
    """Encoded texts, ids without eos, and what there is to say about reading them."""

    ids: list[list[int]]
    notes: list[str]


def read_texts(texts: Sequence[str], file: str | None) -> list[str]:
    """The stripped texts, or those of a file or of standard input; a fault is a UserError."""
    if file is None:
        return [text.strip() for text in texts]
    faults = Faults()
    if file == STANDARD_INPUT:
        text = decode_utf8("standard input", sys.stdin.buffer.read(), faults)
        lines = split_lines(text or "")
    else:
        lines = read_lines(file, faults)
    faults.raise_if_any("cannot read the texts")
    return lines or []


def encode_texts(
    texts: Sequence[str],
    vocabulary: Vocabulary,
    longest: int,
    truncate: bool = False,
    skip_long: bool = False,
) -> Sources:
    """The ids of texts; those of more than ``longest`` tokens in their frame are a UserError.

    ``truncate`` cuts these, ``skip_long`` leaves none of their ids.
    """
    notes = []
    small = small_letters(texts, vocabulary)
    if small:
        counts = [sum(ord(letter) in small for letter in text) for text in texts]
        notes.append(f"{_counted(counts, 'capital')} read as small letters")
    # An empty text is none, also where a language stands before every text.
    ids = [vocabulary.encode(text.translate(small)) if text else [] for text in texts]
    unknown = [part.count(vocabulary.unk_id) for part in ids]
    if any(unknown):
        notes.append(f"{_counted(unknown, 'token')} read as <unk>")
    notes += special_names(texts, vocabulary)
    room = longest - vocabulary.frame.size
    long = {number: len(part) for number, part in enumerate(ids, 1) if len(part) > room}
    if long and not (truncate or skip_long):
        how = (
            "shorten them, cut them by --truncate, or leave them out by --skip-long (in Python "
            "truncate=True, skip_long=True)"
        )
        raise UserError(f"{_too_long(long, room)}; {how}")
    if long:
        verb = "was" if len(long) == 1 else "were"
        notes.append(f"{_too_long(long, room)} and {verb} {'skipped' if skip_long else 'cut'}")
    if skip_long:
        return Sources([part if len(part) <= room else [] for part in ids], notes)
    return Sources([part[:room] for part in ids], notes)


def special_names(texts: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    """A note on names of special tokens that stand in texts and are read like other words."""
    found = [vocabulary.special_names_in(text) for text in texts]
    names = dict.fromkeys(name for part in found for name in part)
    if not names:
        return []
    lines = _lines(sum(map(bool, found)))
    shown = ", ".join([*names][:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
    verb = "is" if len(names) == 1 else "are"
    return [f"{shown} in {lines} {verb} read as text, not as the special token of that name"]


def check_texts(given: object) -> list[str]:
    """The texts that were given, one alone or several; what is none is a UserError."""
    if not isinstance(given, str | Iterable):
        raise UserError(f"texts are {given!r}; give a str or a list of them")
    texts = [given] if isinstance(given, str) else list(given)
    others = [number for number, text in enumerate(texts) if not isinstance(text, str)]
    if others:
        first = texts[others[0]]
        count = f", as {len(others) - 1:,} more are" if others[1:] else ""
        raise UserError(f"text {others[0]} is {first!r}, which is no text{count}; give a str each")
    return texts


def _counted(counts: list[int], what: str) -> str:
    total, lines = sum(counts), sum(count > 0 for count in counts)
    noun, verbs = (what, ("is", "was")) if total == 1 else (f"{what}s", ("are", "were"))
    return f"{total:,} {noun} in {_lines(lines)} {verbs[0]} unknown to the model and {verbs[1]}"


def _lines(count: int) -> str:
    return f"{count:,} line" if count == 1 else f"{count:,} lines"


def _too_long(lengths: dict[int, int], room: int) -> str:
    """How many lines are too long, the number and the tokens of each."""
    listed = [f"{number:,} has {count:,}" for number, count in lengths.items()][:LISTED_LINES]
    left = len(lengths) - len(listed)
    more = f", {left:,} more up to {max([*lengths.values()][LISTED_LINES:]):,}" if left else ""
    verb = "is" if len(lengths) == 1 else "are"
    count = f"{_lines(len(lengths))} {verb} longer than the {room:,} tokens the model reads"
    return f"{count} (line {', '.join(listed)}{more})"


def translate(
    ids: Sequence[list[int]],
    decode: Decode,
    search: Search,
    rows: int,
    config: TransformerConfig,
    advance: Callable[[int], object] = lambda count: None,
    frame: Frame | None = None,
    workers: Workers = ONE_WORKER,
) -> Iterator[list[list[Hypothesis]]]:
    """The outputs of each source, in order, a block of sources at a time.

    ``rows`` is the size of a batch; ``advance`` hears how many sources were done. A source
    without tokens has the empty output. ``frame`` is what stands around the ids of a source;
    ``workers`` search batches side by side.
    """
    size = rows * BATCHES_OF_A_BLOCK

    def rows_of(length: int) -> int:
        return rows

    for first in range(0, len(ids), size):
        block = ids[first : first + size]
        yield decode_all(decode, block, search, rows_of, config, advance, frame, workers=workers)
