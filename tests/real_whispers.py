"""Real Whispers as CTranslate2 has them, where they are: ``make speech-weights`` gets them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1] / "build" / "speech-weights"
NAMED = {"tiny.en": "WHISPER_TINY_EN", "base": "WHISPER_BASE"}
SIZES = {"tiny.en": 51864, "base": 51865}


def real_whisper(name: str) -> Path:
    """The folder of tiny.en or base; a test that needs it is skipped where it is not."""
    folder = Path(os.environ.get(NAMED[name], HOME / name))
    if not (folder / "model.bin").is_file():
        pytest.skip(f"make speech-weights gets {folder}; {NAMED[name]} names another folder")
    return folder
