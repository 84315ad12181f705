"""python -m benchmarks.tokenizer_agreement FOLDER...: our ids and texts beside transformers' own.

Each folder is one of transformers with a model and its tokenizer. Every line of the files is cut by
our vocabularies and by AutoTokenizer, with what stands around it, and both lists of ids are made
text again. Printed are, of each folder and side, the lines, those with other ids, those that come
back as another text, and one of each.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from convert.conversion.request import SourceRequest  # noqa: E402
from convert.conversion.sources.source import read_import  # noqa: E402
from convert.tokenizers import read_vocabularies  # noqa: E402
from training_recipe.text.languages import near  # noqa: E402
from training_recipe.text.model_vocabularies import Pair, in_languages  # noqa: E402
from training_recipe.text.published import PublishedVocabulary  # noqa: E402
from training_recipe.text.vocabulary import Vocabulary  # noqa: E402
from transformer_spec.json_text import read_json_file  # noqa: E402

AT_ONCE = 1000


@dataclass
class Agreement:
    """What came of the lines of one side of a folder: the lines that differ."""

    lines: int = 0
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def vocabularies(folder: Path) -> Pair:
    """Our vocabularies of a folder, in the languages that its files choose."""
    found = read_import(SourceRequest(folder, optimizer=False))
    name = found.family.name if found.family else ""
    pair = read_vocabularies(folder, name, read_json_file(folder / "config.json"), found.config)
    if pair is None:
        raise SystemExit(f"{folder} has no tokenizer")
    return pair


def opened(folder: Path, languages: Sequence[str]) -> tuple[Pair, Any]:
    """Our vocabularies and the library's tokenizer, in languages near to two codes."""
    from transformers import AutoTokenizer

    pair = vocabularies(folder)
    known = list(pair[0].languages)
    codes = [next(iter(near(code, known)), code) for code in languages]
    spoken = {"src_lang": codes[0], "tgt_lang": codes[1]} if pair[1].languages else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = AutoTokenizer.from_pretrained(folder, **spoken)
    return in_languages(pair, ",".join(codes)) if known else pair, tokenizer


def compared(
    vocabulary: Vocabulary, tokenizer: Any, texts: Sequence[str], is_target: bool
) -> Agreement:
    """The lines of texts that the two cut or join in other ways."""
    found = Agreement()
    for first in range(0, len(texts), AT_ONCE):
        block = texts[first : first + AT_ONCE]
        theirs = tokenizer(**{"text_target" if is_target else "text": list(block)})["input_ids"]
        written = tokenizer.batch_decode(theirs, skip_special_tokens=True)
        for text, ids, back in zip(block, theirs, written, strict=True):
            ours = vocabulary.frame.around(vocabulary.encode(text))
            found.lines += 1
            if ours != ids:
                found.ids.append(text)
            if vocabulary.decode(ours) != back:
                found.texts.append(text)
    return found


def agreements(
    folder: Path, languages: Sequence[str], sides: Sequence[Sequence[str]]
) -> Iterator[Agreement]:
    """Of source and of target; a source that begins with a language gets it as text."""
    pair, tokenizer = opened(folder, languages)
    for number, (vocabulary, texts) in enumerate(zip(pair, sides, strict=True)):
        told = isinstance(vocabulary, PublishedVocabulary) and vocabulary.begins_with_target
        front = f">>{vocabulary.language}<< " if told else ""
        yield compared(vocabulary, tokenizer, [front + text for text in texts], number == 1)


def read_lines(paths: Sequence[Path]) -> list[str]:
    lines: list[str] = []
    for path in paths:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines += data.decode("utf-8").rstrip("\n").split("\n")
    return lines


def main() -> None:
    first = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[2])
    first.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    first.add_argument("--source", nargs="+", type=Path, required=True, metavar="FILE")
    first.add_argument("--target", nargs="+", type=Path, required=True, metavar="FILE")
    first.add_argument("--languages", default="en,de", help="codes, or the beginnings of codes")
    options = first.parse_args()
    sides = [read_lines(options.source), read_lines(options.target)]
    print(f"{'folder':18}{'side':8}{'lines':>8}{'other ids':>11}{'other text':>12}")
    for folder in options.folders:
        found = agreements(folder, options.languages.split(","), sides)
        for side, one in zip(("source", "target"), found, strict=True):
            counts = f"{one.lines:8}{len(one.ids):11}{len(one.texts):12}"
            print(f"{folder.name:18}{side:8}{counts}", flush=True)
            for kind, lines in (("ids", one.ids), ("text", one.texts)):
                if lines:
                    print(f"    other {kind}, such as {lines[0]!r}", flush=True)


if __name__ == "__main__":
    main()
