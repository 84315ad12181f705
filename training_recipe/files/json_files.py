"""JSON objects in files: read with one clear error, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training_recipe.files.writing import replace_file
from transformer_spec.errors import UserError
from transformer_spec.json_text import read_json_file


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file at once."""
    replace_file(path, lambda partial: partial.write_text(json_text(content), encoding="utf-8"))


def json_text(content: Any) -> str:
    """JSON as every file of a run is written."""
    return json.dumps(content, indent=2) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; a missing or damaged file is a UserError that names it."""
    try:
        content = read_json_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return content
