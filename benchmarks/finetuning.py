"""python -m benchmarks.finetuning OUT --texts FOLDER: what fine-tuning does on real text.

A small model of Marian's shape is trained on one half of Multi30k and becomes a folder of
transformers. From that folder ``train.py --init`` goes on with the other half, in the other
framework; what comes of it becomes a folder of transformers again. BLEU of the test part, before
and after, by what translate.py says and by the tokenizer, the class and the ``generate`` of
transformers, and how many of their sentences differ. FOLDER holds train, val and test_2016_flickr
.en.gz and .de.gz. What is in OUT already is not done again, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LANGUAGES = ("en", "de")
PARTS = {"valid": "val", "test": "test_2016_flickr"}
ROWS = 50


def write_texts(source: Path, out: Path) -> None:
    """The first and the second half of the training part, and the others, as plain text."""
    out.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        lines = read(source / f"train.{language}.gz")
        half = len(lines) // 2
        parts = {"first": lines[:half], "second": lines[half:]}
        parts |= {name: read(source / f"{part}.{language}.gz") for name, part in PARTS.items()}
        for name, part in parts.items():
            (out / f"{name}.{language}").write_text("\n".join(part) + "\n", encoding="utf-8")


def read(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()


def do(result: Path, *words: str | Path) -> None:
    """Run a command of the project that makes ``result``, unless that is there."""
    if result.exists():
        print(f"{result} is there")
        return
    began = time.monotonic()
    print("$ python", *words, flush=True)
    subprocess.run([sys.executable, *map(str, words)], check=True)
    print(f"({(time.monotonic() - began) / 60:.0f} min)", flush=True)


def train(run: Path, texts: Path, *words: str | Path) -> None:
    """Train a run to its end, or go on with it."""
    done = run / "curves.png"
    if run.exists() and not done.exists():
        do(done, ROOT / "train.py", "--resume", run)
    judged = ("--valid", texts / "valid", "--test", texts / "test", "--device", "cpu")
    do(done, ROOT / "train.py", *words, *judged, "--out", run)


def lines(texts: Path, language: str) -> list[str]:
    """The test part in a language."""
    return (texts / f"test.{language}").read_text(encoding="utf-8").splitlines()


def scores(model: Path, folder: Path, texts: Path) -> dict[str, float]:
    """BLEU of the test part as a model of ours and its folder of transformers translate it."""
    from sacrebleu.metrics.bleu import BLEU

    import twinformer

    sources, references = (lines(texts, language) for language in LANGUAGES)
    translate = twinformer.Translator(model, backend="torch", batch_size=ROWS)
    ours, theirs = [found.text for found in translate(sources)], generated(folder, sources)
    ours_score, theirs_score = (
        BLEU().corpus_score(said, [references]).score for said in (ours, theirs)
    )
    differ = sum(one != other for one, other in zip(ours, theirs, strict=True))
    return {"translate": ours_score, "generate": theirs_score, "sentences that differ": differ}


def generated(folder: Path, sources: list[str]) -> list[str]:
    """What transformers' own tokenizer, class and generate say."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    said: list[str] = []
    for first in range(0, len(sources), ROWS):
        given = tokenizer(sources[first : first + ROWS], padding=True, return_tensors="pt")
        with torch.no_grad():
            said += tokenizer.batch_decode(model.generate(**given), skip_special_tokens=True)
    return said


def measure(out: Path, texts: Path) -> dict[str, Any]:
    """All stages; BLEU before and after."""
    base, tuned = out / "base", out / "tuned"
    train(base, texts, "--recipe", "marian-multi30k", "--data", texts / "first",
          "--backend", "torch")  # fmt: skip
    do(out / "marian", "-m", "convert", base, out / "marian", "--to", "marian", "--no-optimizer")
    train(tuned, texts, "--recipe", "finetune-multi30k", "--init", out / "marian",
          "--data", texts / "second", "--backend", "jax")  # fmt: skip
    do(out / "back", "-m", "convert", tuned, out / "back", "--to", "marian", "--no-optimizer")
    return {
        "before": scores(out / "marian", out / "marian", texts),
        "after": scores(tuned, out / "back", texts),
    }


def main(arguments: list[str] | None = None) -> None:
    description = (__doc__ or "").partition("\n\n")[2]
    parser = argparse.ArgumentParser(
        "python -m benchmarks.finetuning",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, help="folder for texts, runs and converted folders")
    parser.add_argument("--texts", type=Path, required=True, help="folder of Multi30k's raw texts")
    options = parser.parse_args(arguments)
    texts = options.out / "texts"
    if not texts.exists():
        write_texts(options.texts, texts)
    found = measure(options.out, texts)
    (options.out / "scores.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for when, taken in found.items():
        shown = ", ".join(f"{who} {score:.4g}" for who, score in taken.items())
        print(f"BLEU {when}: {shown}")


if __name__ == "__main__":
    main()
