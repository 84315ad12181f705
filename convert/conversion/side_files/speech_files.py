"""The files beside a Whisper's weights for Hugging Face transformers, where they are not there.

How its program generates, and how it makes features of sound, follow from the size of a published
vocabulary; of another one nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from convert.checkpoints.folders.config_files import settings_in
from convert.conversion.side_files.beside import PREPROCESSOR
from convert.families.whisper.ids import known_tokens
from convert.files.kinds import GENERATION
from training_recipe.files.json_files import write_json
from training_recipe.speech.alignment import alignment_heads, foreign_heads
from training_recipe.speech.settings import (
    HOP,
    RATE,
    SECONDS,
    generation_settings,
    preprocessor_settings,
)
from training_recipe.speech.tokenizer import FILES, SpeechTokenizer
from training_recipe.speech.tokens import SpeechTokens, suppressed
from transformer_spec import TransformerConfig, UserError, source_positions

PROCESSOR = "processor_config.json"
EXTRACTOR = "feature_extractor"  # its part of the second
HEADS = "alignment_heads"
BY_RULE = "the sizes of the model"
NOT_SUPPRESSED = (
    f"{GENERATION} is written without suppress_tokens, which only a tokenizer tells: {{}}"
)
OTHER_WINDOW = "{} is not written: {} positions are not those of a window of {} seconds"
PlaceOf = Callable[[str], Path | None]


@dataclass(frozen=True)
class SpeechFiles:
    """What is to be written, place -> what writes it, and what is to be said."""

    made: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def speech_files(
    config: TransformerConfig, place_of: PlaceOf, settings: Mapping[str, Any] | None
) -> SpeechFiles:
    """The settings that are absent; ``place_of`` gives a file that is written or read, by its name.

    ``settings`` are those that the weights came with, which may name heads.
    """
    tokens = known_tokens(config.target_vocab_size)
    made, notes = dict[str, Callable[[Path], object]](), list[str]()
    if tokens is None:
        return SpeechFiles()
    if place_of(GENERATION) is None:
        heads, told = _heads(config, settings or {})
        never, why = _suppressed(tokens, place_of, settings or {})
        written = generation_settings(tokens, never, heads) | _begun(settings or {})
        made[GENERATION] = partial(write_json, content=written)
        notes += [*told, *why]
    if place_of(PREPROCESSOR) is None and EXTRACTOR not in _content(place_of(PROCESSOR)):
        frames, M = RATE * SECONDS // HOP, config.feature_dim
        if source_positions((1, frames, M), config) == config.max_source_length:
            made[PREPROCESSOR] = partial(write_json, content=preprocessor_settings(M))
        else:
            notes.append(OTHER_WINDOW.format(PREPROCESSOR, config.max_source_length, SECONDS))
    return SpeechFiles(made, notes)


def _heads(
    config: TransformerConfig, settings: Mapping[str, Any]
) -> tuple[list[Any] | None, list[str]]:
    """The heads that came with the weights, as far as the model has them, or a published one's."""
    given = settings.get(HEADS)
    if not isinstance(given, list):
        return alignment_heads(config), []
    foreign = foreign_heads(given, config)
    kept = [pair for pair in given if pair not in foreign]
    return kept or None, [_told(foreign, "they are left out")] if foreign else []


def _told(foreign: list[object], what: str) -> str:
    return f"warning: {HEADS} {foreign} are of layers or heads that the model does not have: {what}"


def _begun(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is never written first, where a folder of CTranslate2's says so."""
    given = settings.get("suppress_ids_begin")
    return {"begin_suppress_tokens": given} if isinstance(given, list) else {}


def _suppressed(
    tokens: SpeechTokens, place_of: PlaceOf, settings: Mapping[str, Any]
) -> tuple[Sequence[int] | None, list[str]]:
    """What is never written, as a folder of CTranslate2's says it, or by rule."""
    given = settings.get("suppress_ids")
    if isinstance(given, list):
        return given, []
    found = next((place for name in FILES if (place := place_of(name)) is not None), None)
    if found is None:
        return None, [NOT_SUPPRESSED.format("there is none")]
    try:
        tokenizer = SpeechTokenizer.load(found.parent, tokens.vocab_size)
        return suppressed(tokens, tokenizer.encode), []
    except ModuleNotFoundError as error:
        return None, [NOT_SUPPRESSED.format(f"it needs {error.name}, which is not installed")]
    except UserError as error:
        return None, [NOT_SUPPRESSED.format(error)]


def warnings(config: TransformerConfig, place_of: PlaceOf) -> list[str]:
    """What files that are there say otherwise than the model is."""
    found, place = list[str](), place_of(PREPROCESSOR) or place_of(PROCESSOR)
    content = _content(place)
    inner = content.get(EXTRACTOR)
    size = (inner if isinstance(inner, dict) else content).get("feature_size")
    if place is not None and size is not None and size != config.feature_dim:
        found.append(
            f"warning: {place.name} says feature_size {size!r}, and the model takes "
            f"{config.feature_dim} numbers a frame: features made by it do not fit"
        )
    given = _content(place_of(GENERATION)).get(HEADS)
    foreign = foreign_heads(given, config) if isinstance(given, list) else []
    told = f"times of words by {GENERATION} are wrong"
    return found + ([_told(foreign, told)] if foreign else [])


def _content(place: Path | None) -> dict[str, Any]:
    return {} if place is None else settings_in(place)
