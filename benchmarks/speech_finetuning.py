"""python benchmarks/speech_finetuning.py MODEL FOLDER: what fine-tuning does to a model of speech.

Rows of digits are spoken by espeak-ng in hoarse and whispering voices, which a Whisper mishears.
It is fine-tuned in both frameworks; the word error rate of recordings that it never heard is taken
before and after. Then it goes back into a folder of transformers and a file of OpenAI's, which have
to transcribe the same. FOLDER gets everything and may be there already, half done.
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from training_recipe.corpora.corpus import Example  # noqa: E402
from twinformer import Transcriber, convert  # noqa: E402
from twinformer.__main__ import main as twinformer  # noqa: E402
from twinformer.training.evaluation.scores import transcription_scores  # noqa: E402

DIGITS = "zero one two three four five six seven eight nine".split()
VOICES = ("en+croak", "en+whisper", "en-gb-scotland+croak")
PARTS = {"train": 200, "valid": 20, "test": 60}
FLAGS = (
    "--columns", "audio,text", "--steps", "50", "--batch-tokens", "6000", "--peak-lr", "2e-5",
    "--warmup-steps", "5", "--evaluate-every", "25", "--save-every", "25", "--log-every", "5",
    "--beam", "1", "--test-examples", "1",
)  # fmt: skip
Pairs = list[tuple[str, str]]


def speak(place: Path) -> None:
    """Tables of sound files and texts, for each part."""
    draw = random.Random(0)
    for part, count in PARTS.items():
        folder = place / part
        folder.mkdir(parents=True, exist_ok=True)
        rows = [("audio", "text")]
        for number in range(count):
            text = " ".join(draw.choice(DIGITS) for _ in range(draw.randint(3, 6)))
            voice, speed, pitch = (
                draw.choice(VOICES),
                draw.choice((150, 220, 280)),
                draw.choice((10, 90)),
            )
            name = f"{number:03}.wav"
            how = ["-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(folder / name)]
            subprocess.run(["espeak-ng", *how, text], check=True)
            rows.append((name, text))
        with (folder / "pairs.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def spoken(folder: Path) -> Pairs:
    """Files and texts of a part."""
    with (folder / "pairs.csv").open(newline="") as file:
        return [(str(folder / row["audio"]), row["text"]) for row in csv.DictReader(file)]


def heard(model: Path, pairs: Pairs, backend: str) -> list[str]:
    """What a model writes of recordings, at once and greedily."""
    transcribe = Transcriber(model, backend=backend)
    files = [file for file, _ in pairs]
    return [found.text for found in transcribe(files, temperatures=(0.0,))]


def word_errors(texts: list[str], pairs: Pairs) -> float:
    """WER in percent."""
    examples = [Example(file, (text,)) for file, text in pairs]
    return transcription_scores(texts, examples).main


def tuned(model: Path, place: Path, backend: str) -> Path:
    """The run, begun where it is not there."""
    run = place / f"run-{backend}"
    if not run.exists():
        data = [f"--{name}={place / part / 'pairs.csv'}" for name, part in
                (("data", "train"), ("valid", "valid"), ("test", "test"))]  # fmt: skip
        flags = ["--backend", backend, "--init", str(model), "--out", str(run), *data, *FLAGS]
        if twinformer(["train", *flags]):
            raise SystemExit(f"training in {backend} failed")
    return run


def handed_back(run: Path, place: Path) -> list[Path]:
    """The run as transformers and as OpenAI have it, a tokenizer beside the latter."""
    theirs, openai = place / f"{run.name}-whisper", place / f"{run.name}-openai"
    for folder, family in ((theirs, "whisper"), (openai, "whisper-openai")):
        shutil.rmtree(folder, ignore_errors=True)
        convert(run, folder, to=family, optimizer=False)
    shutil.copy(theirs / "tokenizer.json", openai)
    return [theirs, openai]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fine-tuning on synthetic speech.")
    parser.add_argument("model", type=Path, help="a model of speech in English")
    parser.add_argument("folder", type=Path, help="for recordings, runs and what becomes of them")
    parser.add_argument("--backends", nargs="+", choices=("torch", "jax"), default=["torch", "jax"])
    options = parser.parse_args(arguments)
    if shutil.which("espeak-ng") is None:
        parser.error("espeak-ng is not installed: apt install espeak-ng")
    if not (options.folder / "test" / "pairs.csv").exists():
        speak(options.folder)
    test = spoken(options.folder / "test")
    print(f"before: WER {word_errors(heard(options.model, test, 'torch'), test):.1f}", flush=True)
    for backend in options.backends:
        run = tuned(options.model, options.folder, backend)
        texts = heard(run, test, backend)
        print(f"{backend}: WER {word_errors(texts, test):.1f}", flush=True)
        for folder in handed_back(run, options.folder):
            same = sum(map(str.__eq__, heard(folder, test, "torch"), texts))
            print(f"  {folder.name}: {same} of {len(test)} transcripts are the same", flush=True)


if __name__ == "__main__":
    main()
