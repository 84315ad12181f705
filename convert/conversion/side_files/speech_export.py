"""The files of a Whisper's folder on the way out: its tokenizer, and those of faster-whisper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from convert.checkpoints.folders.config_files import settings_in
from convert.conversion.side_files.beside import ORIGINAL, PREPROCESSOR, VOCABULARY, folder_of
from convert.conversion.sources.source import Import
from convert.exports.ctranslate2_speech import THEIRS
from convert.files.account import CARRIED, REWRITTEN, Entry, FilesPlan
from convert.files.kinds import GENERATION
from training_recipe.files.json_files import write_json
from training_recipe.speech.settings import preprocessor_settings
from training_recipe.speech.tokenizer import (
    REPAIRED,
    TOKENIZER,
    SpeechTokenizer,
    repaired,
    tokenizer_json,
)
from transformer_spec import UserError

MENDED = "the first merge of GPT-2 is put back"


def speech_tokenizer(source: Import) -> SpeechTokenizer:
    """The tokenizer beside weights; a UserError says why there is none."""
    home = source.located.home
    folder = home / VOCABULARY if home is not None else folder_of(source.located)
    if folder is None:
        raise UserError("no tokenizer lies beside the weights")
    try:
        return SpeechTokenizer.load(folder, source.config.target_vocab_size)
    except ModuleNotFoundError as error:
        raise UserError(f"its tokenizer needs {error.name}, which is not installed") from None


def speech_settings(source: Import) -> dict[str, Any]:
    """What a model was published with, as far as CTranslate2 asks: of generation, or of its own."""
    home, origin = source.located.home, source.origin
    folder = home / ORIGINAL if home is not None else folder_of(source.located)
    names = {*THEIRS, *THEIRS.values()}
    said: Mapping[str, Any] = (origin.settings or {}) if origin is not None else {}
    found = {name: said[name] for name in names & said.keys()}
    generation = settings_in(folder / GENERATION) if folder is not None else {}
    return found | {name: generation[name] for name in names & generation.keys()}


def with_exported(source: Import, plan: FilesPlan) -> FilesPlan:
    """The plan with what faster-whisper reads and the source lacks."""
    made, made_from = dict(plan.made), dict(plan.made_from)
    there = {entry.to for entry in plan.entries if entry.what == CARRIED} | made.keys()
    if PREPROCESSOR not in there:
        made[PREPROCESSOR] = partial(
            write_json, content=preprocessor_settings(source.config.feature_dim)
        )
        made_from[PREPROCESSOR] = "the numbers in a frame"
    try:
        tokenizer = speech_tokenizer(source) if TOKENIZER not in there else None
    except UserError:
        tokenizer = None  # what is written says why
    if tokenizer is not None:
        made[TOKENIZER] = partial(_write_text, tokenizer_json(tokenizer))
        made_from[TOKENIZER] = "vocab.json, merges.txt"
    return replace(plan, made=made, made_from=made_from)


def mended(plan: FilesPlan) -> FilesPlan:
    """The plan with a tokenizer that lacks the first merge written anew, and a note of that."""
    entries, made, notes = list[Entry](), dict(plan.made), list(plan.notes)
    for entry in plan.entries:
        data = _mended(entry)
        if data is None or entry.to is None:
            entries.append(entry)
            continue
        entries.append(replace(entry, what=REWRITTEN, reason=MENDED))
        made[entry.to] = partial(_write_bytes, data)
        notes.append(REPAIRED.format(name=entry.found.name))
    return replace(plan, entries=entries, made=made, notes=notes)


def _mended(entry: Entry) -> bytes | None:
    if entry.what != CARRIED or entry.found.fault:
        return None
    try:
        return repaired(entry.found.path.name, entry.found.path.read_bytes())
    except OSError:
        return None  # what carries it says what is wrong


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _write_bytes(data: bytes, path: Path) -> None:
    path.write_bytes(data)
