"""The flags of ``twinformer transcribe``, and what they ask for."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_recipe.options.invocation import words
from training_recipe.options.parser import Formatter, Parser
from training_recipe.speech.tokens import TASKS
from training_recipe.transcription.fallback import TEMPERATURES, Thresholds
from training_recipe.transcription.settings import LONGEST, TranscriptionSettings
from transformer_spec.errors import Faults, UserError
from twinformer.transcribing.formats import FORMATS, TIMED

ALL, BEST, STANDARD_INPUT = "all", "best", "-"
SETTINGS = ("language", "task", "timestamps", "beam", "best_of", "temperatures", "previous_text")
SETTINGS = (*SETTINGS, "prompt", "chunks", "max_length", "seed")
THRESHOLDS = {
    "compression_ratio": "write again what zlib makes so many times shorter, or more",
    "log_probability": "write again what has a lower mean log probability of its tokens",
    "no_speech": "pass over windows in which nothing is said with a higher probability, and of "
    "which the output is not likely either",
}

EPILOG = f"""\
Recordings of more than 30 s are heard in windows of 30 s, each of which begins where the last
complete segment of the one before ends; their text has times, which --output-format shows. What is
likely wrong is written again at higher temperatures. --chunks cuts every 30 s instead and hears
--batch-size windows of one recording at once, each of which is a segment: words at the cuts suffer.

Without --output-dir the transcripts are printed, in the order of the files, those of several files
under their names. A file that cannot be read is named, the others are transcribed all the same, and
the exit status is 2.

WAV files of 16,000 samples a second need nothing; other rates, FLAC, MP3, OGG, AIFF and other kinds
of WAV need the extra speech.

examples:
  {words("transcribe")} whisper-base talk.wav
  {words("transcribe")} openai/whisper-small *.mp3 --language fr --output-format srt --output-dir subtitles
  {words("transcribe")} whisper-base talk.wav --task translate --timestamps
  ffmpeg -i talk.mp4 -f wav - | {words("transcribe")} whisper-base -
"""  # noqa: E501


@dataclass(frozen=True)
class Request:
    """What one call of the command asks for; ``formats`` are names of FORMATS."""

    model: Path
    files: list[str]
    settings: TranscriptionSettings
    formats: tuple[str, ...]
    output_dir: Path | None
    backend: str | None
    device: str
    batch_size: int
    checkpoint: str
    verify: bool


def parser() -> argparse.ArgumentParser:
    """Every flag once, in its group."""
    made = Parser(
        prog=words("transcribe"),
        usage="%(prog)s MODEL FILE [FILE ...] [--language CODE] [--SETTING VALUE ...]",
        description="Write down what is said in recordings, by a model of speech (Whisper).",
        epilog=EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    source = "converted folder, folder of another library, or OWNER/NAME[@REVISION] on the Hub"
    made.add_argument("model", metavar="MODEL", type=Path, help=source)
    files = f"recordings; {STANDARD_INPUT}: one on standard input"
    made.add_argument("files", metavar="FILE", nargs="+", help=files)
    _add_output(made.add_argument_group("output"))
    _add_speech(made.add_argument_group("speech"))
    _add_search(made.add_argument_group("search"))
    _add_model(made.add_argument_group("model"))
    return made


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    kinds = (
        "txt: a line for each segment; srt, vtt: subtitles; tsv: milliseconds; json: all that is "
        "known, a line for each file [txt]"
    )
    add("--output-format", choices=(*FORMATS, ALL), default="txt", help=kinds)
    folder = "write FILE.txt and the like there, instead of printing"
    add("--output-dir", type=Path, metavar="FOLDER", help=folder)
    times = "also for recordings of at most 30 s, and printed before the lines of txt"
    _setting(group, "--timestamps", action="store_true", help=f"times {times}")


def _add_speech(group: argparse._ArgumentGroup) -> None:
    language = "code of what is spoken, as in fr, of a model that has languages [detected]"
    _setting(group, "--language", metavar="CODE", help=language)
    task = "write it down, or translate it into English [transcribe]"
    _setting(group, "--task", choices=TASKS[::-1], help=task)
    previous = "what was written is the context of the next window"
    _setting(group, "--previous-text", action="store_true", help=previous)
    prompt = "what stands before the first window: names and words that may be said"
    _setting(group, "--prompt", metavar="TEXT", help=prompt)
    chunks = "cut every 30 s and hear many windows of a recording at once; words at the cuts suffer"
    _setting(group, "--chunks", action="store_true", help=chunks)


def _add_search(group: argparse._ArgumentGroup) -> None:
    _setting(group, "--beam", type=int, metavar="N", help="width of the search; 1: greedy [1]")
    longest = f"most tokens of the output for a window [{LONGEST}]"
    _setting(group, "--max-length", type=int, metavar="N", help=longest)
    shown = ",".join(f"{each:g}" for each in TEMPERATURES)
    warm = f"the first, and those for what is likely wrong; 0: nothing is written again [{shown}]"
    _setting(group, "--temperatures", type=_numbers, metavar="X,X,...", help=warm)
    best = "samples of which the best is taken at a temperature above 0 [5]"
    _setting(group, "--best-of", type=int, metavar="N", help=best)
    _setting(group, "--seed", type=int, metavar="N", help="of the samples [0]")
    for name, text in THRESHOLDS.items():
        default = getattr(Thresholds(), name)
        flag = f"--{name.replace('_', '-')}-threshold"
        told = f"{text}; none: never [{default:g}]"
        _setting(group, flag, type=_threshold, metavar="X", help=told)


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    backend = "framework [that of the run or folder if it is installed, else the other]"
    add("--backend", choices=("jax", "torch"), help=backend)
    step = "the best checkpoint of a run, or that of a step [best]"
    add("--checkpoint", metavar="best|STEP", default=BEST, help=step)
    device = "where to compute; auto: an accelerator if there is one [auto]"
    add("--device", choices=("auto", "cpu", "gpu", "tpu"), default="auto", help=device)
    add("--batch-size", type=int, metavar="N", default=8, help="windows at once [8]")
    verify = "transcribe even where weights are not what was saved or converted"
    add("--no-verify", dest="verify", action="store_false", help=verify)


def _setting(group: argparse._ArgumentGroup, flag: str, **how: Any) -> None:
    """A flag that is left out of what was given where it is not given."""
    group.add_argument(flag, default=argparse.SUPPRESS, **how)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers as in 0,0.5") from None


def _threshold(text: str) -> float | None:
    try:
        return None if text == "none" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, and not none") from None


def parse(arguments: list[str] | None) -> Request:
    """The request of a command line, all its faults in one UserError."""
    given = vars(parser().parse_intermixed_args(arguments))
    asked = {name: given.pop(name) for name in SETTINGS if name in given}
    limits = {n: given.pop(f"{n}_threshold") for n in THRESHOLDS if f"{n}_threshold" in given}
    kind = given.pop("output_format")
    formats = tuple(FORMATS) if kind == ALL else (kind,)
    if any(each in TIMED for each in formats):
        asked["timestamps"] = True
    settings = TranscriptionSettings(**asked, thresholds=Thresholds(**limits))
    faults = Faults()
    _check_output(given, kind, formats, faults)
    _check_numbers(given, faults)
    try:
        settings.check()
    except UserError as error:
        faults.take(error)
    faults.raise_if_any("cannot transcribe")
    return Request(settings=settings, formats=formats, **given)


def _check_output(
    given: dict[str, Any], kind: str, formats: tuple[str, ...], faults: Faults
) -> None:
    """Whether every transcript has a place of its own."""
    files, folder = given["files"], given["output_dir"]
    faults.require(files.count(STANDARD_INPUT) <= 1, "standard input (-) can be read once")
    if folder is None:
        faults.require(kind != ALL, "--output-format all needs --output-dir FOLDER")
        one = len(files) == 1 or not {"srt", "vtt", "tsv"} & {*formats}
        faults.require(one, f"--output-format {kind} of several files needs --output-dir FOLDER")
        return
    counts = Counter(stem_of(file) for file in files)
    twice = ", ".join(name for name, count in counts.items() if count > 1)
    message = f"several files would be written to {twice} in {folder}; transcribe them apart"
    faults.require(not twice, message)


def stem_of(file: str) -> str:
    """What the files of a transcript are called, but for their ending."""
    return "standard-input" if file == STANDARD_INPUT else Path(file).stem


def _check_numbers(given: dict[str, Any], faults: Faults) -> None:
    size, checkpoint = given["batch_size"], given["checkpoint"]
    faults.require(size >= 1, f"--batch-size is {size}; it must be at least 1")
    known = checkpoint == BEST or (checkpoint.isascii() and checkpoint.isdecimal())
    faults.require(known, f"--checkpoint is {checkpoint!r}; it must be {BEST} or a step's number")
