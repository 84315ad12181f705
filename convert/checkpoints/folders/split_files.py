"""Weights in files of their own beside the settings: OpenNMT-py 3.5 and eole.

OpenNMT-py's ``--save_format safetensors`` leaves ``NAME.pt`` with options and vocabulary beside
``NAME.00.safetensors``; eole leaves ``config.json``, ``vocab.json``, ``model.00.safetensors``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.core.tensors import Joined, Tensors
from convert.families.eole.config import is_eole
from convert.formats.safetensors import open_safetensors
from convert.formats.torch_file.reader import open_torch_file
from transformer_spec import UserError
from transformer_spec.json_text import read_json_file

NUMBERED = re.compile(r"(.+)\.\d\d\.safetensors")
CONFIG, VOCABULARY, STEM = "config.json", "vocab.json", "model"
WEIGHTS = "model"  # what a .pt of OpenNMT-py has where its weights are inside


@dataclass(frozen=True)
class SplitFiles:
    """The tensors of one or more safetensors, and the settings of the files beside them.

    ``files`` are those of weights, and the .pt that holds nothing else.
    """

    tensors: Tensors
    settings: Mapping[str, Any]
    files: list[Path]


def open_split(path: Path) -> SplitFiles | None:
    """A folder of eole, a .pt without weights, or one of the files with them; else None."""
    numbered = NUMBERED.fullmatch(path.name) if path.is_file() else None
    folder = path.parent if path.is_file() else path
    if path.is_dir() or numbered:
        config = _json(folder / CONFIG)
        if is_eole(config):
            return _eole(folder, config)
    if path.is_dir():
        beside = [file for file in path.glob("*.pt") if _parts(path, file.stem)]
        return _opennmt(beside[0]) if len(beside) == 1 else None
    if numbered and (folder / f"{numbered[1]}.pt").is_file():
        return _opennmt(folder / f"{numbered[1]}.pt")
    if path.suffix == ".pt" and path.is_file() and _parts(folder, path.stem):
        return _opennmt(path)
    return None


def _parts(folder: Path, stem: str) -> list[Path]:
    """NAME.00.safetensors and so on, in order."""
    found = (NUMBERED.fullmatch(file.name) for file in folder.iterdir())
    return sorted(folder / match.string for match in found if match and match[1] == stem)


def _eole(folder: Path, config: Mapping[str, Any]) -> SplitFiles:
    parts, vocabulary = _parts(folder, STEM), folder / VOCABULARY
    if not parts:
        raise UserError(
            f"{folder} has a {CONFIG} of eole and no {STEM}.00.safetensors, which holds the weights"
        )
    known = {"vocab": _json(vocabulary)} if vocabulary.is_file() else {}
    return SplitFiles(_joined(folder, parts), {**config, **known}, parts)


def _opennmt(path: Path) -> SplitFiles | None:
    """Options and vocabulary of the .pt; one that holds weights is a checkpoint by itself."""
    content = open_torch_file(path).content
    options = content.get("opt") if isinstance(content, dict) else None
    if not isinstance(options, dict) or content.get(WEIGHTS):
        return None
    vocabulary = {"vocab": content["vocab"]} if "vocab" in content else {}
    parts = _parts(path.parent, path.stem)
    return SplitFiles(_joined(path, parts), {**options, **vocabulary}, [path, *parts])


def _joined(path: Path, parts: list[Path]) -> Tensors:
    opened = [open_safetensors(part) for part in parts]
    return opened[0] if len(opened) == 1 else Joined(str(path), opened)


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or nothing where there is none."""
    try:
        content = read_json_file(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
