"""CTranslate2 in processes of its own: loading it changes how PyTorch rounds in this one.

One has PyTorch and one has not; each answers until the tests are over.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import io
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest


def ask(what: str, *arguments: Any, **options: Any) -> Any:
    """Call one of the functions below elsewhere; skips the test where CTranslate2 is missing."""
    if importlib.util.find_spec("ctranslate2") is None:
        pytest.skip("ctranslate2 is not installed")
    process = answering("without torch" if what in WITHOUT_TORCH else "with torch")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps([what, arguments, options]) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, f"{what} ended the process"
    found, fault = json.loads(answer)
    assert fault is None, fault
    return found


@functools.cache
def answering(kind: str) -> subprocess.Popen[str]:
    """The process that answers questions of a kind."""
    process = subprocess.Popen(
        [sys.executable, __file__, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)
    return process


def convert_opennmt(checkpoint: str, folder: str) -> None:
    from ctranslate2.converters import OpenNMTPyConverter

    OpenNMTPyConverter(checkpoint, unsafe_deserialization=True).convert(folder)


def convert_marian(model: str, vocabularies: list[str], folder: str) -> None:
    from ctranslate2.converters import MarianConverter

    MarianConverter(model, vocabularies).convert(folder)


def convert_whisper(source: str, folder: str, quantization: str | None = None) -> None:
    """What CTranslate2's own converter makes of a folder of transformers."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(source).convert(folder, quantization=quantization)


def heard(folders: list[str], features: str, prompt: list[int], length: int) -> list[Any]:
    """The ids and the score that each folder's model writes greedily of the features in a file."""
    import numpy as np
    from ctranslate2 import StorageView
    from ctranslate2.models import Whisper

    view, found = StorageView.from_array(np.load(features)), []
    for folder in folders:
        model = Whisper(folder, compute_type="float32", intra_threads=1)
        options: dict[str, Any] = {"beam_size": 1, "max_length": length, "return_scores": True}
        (result,) = model.generate(view, [prompt], **options)
        language = model.detect_language(view)[0][0] if model.is_multilingual else None
        found.append([result.sequences_ids, result.scores, language])
    return found


def export(source: str, folder: str, *options: str) -> str:
    """``python -m convert`` to CTranslate2 where there is no PyTorch; what it prints."""
    return _export(source, folder, *options)


def _export(source: str, folder: str, *options: str) -> str:
    from convert.__main__ import main

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([source, folder, "--to", "ctranslate2", *options]) == 0
    return printed.getvalue()


def refused(source: str, folder: str, *options: str) -> tuple[int, str]:
    """The status of an export that fails, and what it says."""
    from convert.__main__ import main

    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = main([source, folder, "--to", "ctranslate2", *options])
    return status, said.getvalue()


def export_and_follow(source: str, folder: str, texts: list[str]) -> tuple[str, list[str]]:
    """What the export prints, and the lines that the code in it prints for some texts."""
    said = export(source, folder)
    return said, _follow(said, texts)


def export_and_follow_greedily(jobs: list[tuple[str, str, list[str]]]) -> list[list[str]]:
    """The lines that the code printed by each export gives for its texts, with a beam of 1."""
    followed = []
    for source, folder, texts in jobs:
        said = export(source, folder)
        assert "beam_size=5" in said
        followed.append(_follow(said.replace("beam_size=5", "beam_size=1"), texts))
    return followed


def _follow(said: str, texts: list[str]) -> list[str]:
    code = said[said.index("import ctranslate2") :]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {"texts": texts})
    return printed.getvalue().removesuffix("\n").split("\n")


def quantized(
    source: str, home: str, texts: list[str], names: list[str], options: dict[str, Any]
) -> dict[str, list[Any]]:
    """For the exports of several quantizations: what is said, the lines that the code in it gives
    for some texts, and the outputs computed in float32 from what is stored.
    """
    answers = {}
    for name in names:
        said = _export(source, f"{home}/{name}", "--quantization", name)
        outputs = translate(f"{home}/{name}", [list(text) for text in texts], **options)
        answers[name] = [said, _follow(said, texts), outputs]
    return answers


def export_and_answer(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each job: export, search for its sentences, score the outputs that it names."""
    answers = []
    for job in jobs:
        export(job["source"], job["folder"])
        sentences = job["sentences"]
        found = [n_best(job["folder"], sentences, **options) for options in job["searches"]]
        answers.append({"found": found, "scored": score(job["folder"], sentences, job["outputs"])})
    return answers


def n_best(folder: str, sentences: list[list[str]], **options: Any) -> list[list[Any]]:
    """The outputs of each sentence with their scores, best first."""
    found = _translator(folder).translate_batch(sentences, return_scores=True, **options)
    return [list(zip(one.hypotheses, one.scores, strict=True)) for one in found]


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


WITHOUT_TORCH = ("export", "refused", "export_and_follow", "export_and_answer")


def answer(question: str) -> str:
    """The answer to a line, or what went wrong."""
    name, given, chosen = json.loads(question)
    try:
        return json.dumps([globals()[name](*given, **chosen), None])
    except Exception:
        return json.dumps([None, traceback.format_exc()])


if __name__ == "__main__":
    # This file's own folder is not needed, and other packages may have modules of the same names.
    sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).parent]
    if sys.argv[1] == "without torch":
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    # Whatever is printed on the way is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(answer(line), file=answers, flush=True)
