"""A folder of CTranslate2: what model.bin and config.json beside it say, as one mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convert.formats.ctranslate2 import CTranslate2File

CTRANSLATE2 = "ctranslate2"
MODEL_BIN = "model.bin"
# Under which the settings are that are variables of model.bin, and the names that are others'.
SPECIFICATION, REVISION = "specification", "revision"
SCALARS, ALIASES = "scalars", "aliases"


def ctranslate2_settings(file: CTranslate2File, config: Mapping[str, Any]) -> dict[str, Any]:
    """What both files say of the model; nothing of config.json takes the other's place."""
    return {
        **config,
        SPECIFICATION: file.contents.specification,
        REVISION: file.contents.revision,
        SCALARS: file.scalars,
        ALIASES: dict(file.aliases),
    }
