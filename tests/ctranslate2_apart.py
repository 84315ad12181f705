"""CTranslate2 in processes of its own: loading it changes how PyTorch rounds in this one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def ask(what: str, *arguments: Any, **options: Any) -> Any:
    """Call one of the functions below elsewhere; skips the test where CTranslate2 is missing."""
    if importlib.util.find_spec("ctranslate2") is None:
        pytest.skip("ctranslate2 is not installed")
    question = json.dumps([what, arguments, options])
    done = subprocess.run(
        [sys.executable, __file__], input=question, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def convert_opennmt(checkpoint: str, folder: str) -> None:
    from ctranslate2.converters import OpenNMTPyConverter

    OpenNMTPyConverter(checkpoint, unsafe_deserialization=True).convert(folder)


def convert_marian(model: str, vocabularies: list[str], folder: str) -> None:
    from ctranslate2.converters import MarianConverter

    MarianConverter(model, vocabularies).convert(folder)


def translate(folder: str, sentences: list[list[str]], **options: Any) -> list[list[str]]:
    """The best output of each sentence."""
    found = _translator(folder).translate_batch(sentences, **options)
    return [result.hypotheses[0] for result in found]


def score(folder: str, sources: list[list[str]], targets: list[list[str]]) -> list[list[float]]:
    """The log probability of each target token, the end included."""
    return [result.log_probs for result in _translator(folder).score_batch(sources, targets)]


def _translator(folder: str) -> Any:
    from ctranslate2 import Translator

    return Translator(folder, compute_type="float32", intra_threads=1)


if __name__ == "__main__":
    # This file's own folder is not needed, and other packages may have modules of the same names.
    sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]
    name, given, chosen = json.loads(sys.stdin.read())
    print(json.dumps(globals()[name](*given, **chosen)))
