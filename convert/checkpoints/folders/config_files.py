"""Whose a config.json is: ours, another library's, or nobody's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convert.checkpoints.folders.file_names import MODELS
from convert.checkpoints.folders.steps import is_step, is_step_above
from convert.families.base import OtherSettings
from convert.families.eole.config import is_eole
from convert.formats.ctranslate2 import is_ctranslate2
from convert.formats.orbax import is_orbax
from transformer_spec import UserError
from transformer_spec.json_text import json_fault, read_json_file

CONFIG = "config.json"
FOREIGN_MARKS = {
    "model_type",
    "architectures",
    "d_model",
    "transformers_version",
    "torch.nn.Transformer",
    "naming_table",
    "suppress_ids",  # CTranslate2's Whisper
    "n_audio_ctx",  # OpenAI's Whisper
}


def has_our_config(folder: Path) -> bool:
    """Whether there is a config.json that is not another library's; a damaged one is ours."""
    path = folder / CONFIG
    return path.is_file() and not is_foreign(settings_in(path)) and not is_ctranslate2(folder)


def no_config(path: Path, otherwise: str) -> UserError:
    """Why a path without a config of ours cannot be used as a model; ``otherwise`` is advice.

    A config.json of another library is said to be that.
    """
    folder = path if path.is_dir() else path.parent
    if (folder / CONFIG).is_file():
        return UserError(
            f"{folder / CONFIG} is of another library: make a folder of ours with python -m "
            f"convert {path} NEW --to torch (or flax), and give that"
        )
    return UserError(f"{path} has no {CONFIG}; {otherwise}")


def config_places(path: Path) -> list[Path]:
    """The folders in which the config of an Orbax folder may lie, or of a step or an item.

    The nearest that has a config.json is the last one: above it none is looked into. A folder with
    a config.json or weights of its own has no such places.
    """
    path = path.resolve()
    if not path.is_dir() or any((path / name).exists() for name in (CONFIG, *MODELS)):
        return []
    places = _around_item(path) if is_orbax(path) else [path, path.parent] if is_step(path) else []
    own = [number for number, place in enumerate(places, 1) if (place / CONFIG).is_file()]
    return places[: own[0]] if own else places


def _around_item(orbax: Path) -> list[Path]:
    """The folder that an Orbax folder lies in, and where that is a step the one above it."""
    above = orbax.parent
    return [above, above.parent] if is_step_above(above) else [above]


def settings_in(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or nothing where there is none."""
    try:
        content = read_json_file(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_foreign(content: Mapping[str, Any]) -> bool:
    """Whether a config has the marks of another library's; ours and bare fields have none."""
    return is_eole(content) or ("model" not in content and bool(FOREIGN_MARKS & content.keys()))


def foreign_settings(path: Path) -> dict[str, Any] | None:
    """The config.json of another library in a folder, or beside a weight file."""
    places = [path, *config_places(path)] if path.is_dir() else [path.parent]
    found = [settings_in(place / CONFIG) for place in places]
    return next((settings for settings in found if is_foreign(settings)), None)


def other_settings(path: Path) -> OtherSettings | None:
    """A config.json there that ``foreign_settings`` does not take; None where there is none."""
    places = [path, *config_places(path)] if path.is_dir() else [path.parent]
    file = next((p / CONFIG for p in places if os.path.lexists(p / CONFIG)), None)
    if file is None:
        return None
    try:
        content = read_json_file(file)
    except (OSError, ValueError) as error:
        return OtherSettings(json_fault(file, error), True)
    if not isinstance(content, dict):
        return OtherSettings(f"{file} holds no JSON object", True)
    return unmarked(file, content)


def unmarked(file: Path, content: Mapping[str, Any]) -> OtherSettings:
    """Settings that have no mark of another library's."""
    if "model" in content:
        return OtherSettings(f"{file} is twinformer's own, not that of another library")
    marks = "such as model_type and architectures"
    return OtherSettings(f"{file} has none of the keys of a library's config.json, {marks}")
