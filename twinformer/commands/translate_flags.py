"""The flags of ``twinformer translate``, and what they ask for."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_recipe.distributed.mesh import read_mesh
from training_recipe.options.invocation import words
from training_recipe.options.joining import (
    DEVICE_OPTIONS,
    DeviceOptions,
    check_whole,
    device_options,
)
from training_recipe.options.parser import Formatter, Parser
from training_recipe.searching.attention import AttentionWeights
from training_recipe.searching.checks import RULES
from training_recipe.searching.search import GENERATE, check_search
from transformer_spec.errors import Faults, UserError
from twinformer.commands.output import check_output
from twinformer.translating.searching import DEFAULT_BEAM, search_of

BEST = "best"
STANDARD_INPUT = "-"
SEARCH = (
    "beam", "length_penalty", "max_length", "nbest", "sample", "temperature", "top_k", "seed",
    "rule", "early_stopping", "min_length", "no_repeat_ngram_size", "repetition_penalty",
)  # fmt: skip
ONLY_GENERATE = {"early_stopping", "min_length", "no_repeat_ngram_size", "repetition_penalty"}
EARLY = {"true": True, "false": False, "never": "never"}
ONLY_SAMPLING = {"temperature": "--temperature", "top_k": "--top-k", "seed": "--seed"}
PICTURES = (".png", ".svg", ".pdf")

EPILOG = f"""\
Each text or line gives one output line, an empty one an empty line; line breaks that a model
writes are spaces there. With --nbest N > 1 it gives up
to N lines, which begin with the number of the text and a tab. With --scores the score and a tab
stand before the output: sum of the log probabilities / length ** length penalty.

--output FILE is FILE.unfinished until it is whole, and what was FILE stays until then. What stops
before leaves FILE.unfinished with the outputs so far; the next command with that FILE begins anew.

--attention draws what the model looked at, given the best output: a panel for each layer and head,
rows add up to 1. For several texts the files are FILE-1, FILE-2 ..., with the numbers of the texts.

Where the model knows single characters and lacks a capital letter whose small letter it has, the
small letter is read; how often is said on stderr, as is how much of the input is unknown.

examples:
  {words("translate")} runs/cmudict-jax-1 hello world
  {words("translate")} runs/cmudict-jax-1 --file words.txt --output sounds.txt
  echo hello | {words("translate")} runs/cmudict-jax-1 --backend torch --nbest 3 --scores
  {words("translate")} runs/cmudict-jax-1 hello --sample --temperature 0.8 --seed 7
  {words("translate")} runs/cmudict-jax-1 hello --attention hello.png
"""


@dataclass(frozen=True)
class Request:
    """What one call of the command asks for; ``file`` is None where texts are arguments."""

    run: Path
    texts: list[str]
    file: str | None
    output: Path | None
    search: dict[str, Any]
    scores: bool
    truncate: bool
    skip_long: bool
    attention: Path | None
    attention_kind: str
    backend: str | None
    checkpoint: str
    device: str
    batch_size: int
    verify: bool
    languages: str | None
    devices: DeviceOptions


def parser() -> argparse.ArgumentParser:
    """Every flag once, in its group."""
    made = Parser(
        prog=words("translate"),
        usage="%(prog)s RUN [TEXT ...] [--file FILE] [--output FILE] [--SETTING VALUE ...]",
        description="Translate texts with a trained or converted model of either framework.",
        epilog=EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    source = "run, converted folder, folder of another library, or OWNER/NAME[@REVISION] on the Hub"
    made.add_argument("run", metavar="RUN", type=Path, help=source)
    made.add_argument("texts", metavar="TEXT", nargs="*", help="texts to translate")
    _add_files(made.add_argument_group("input and output"))
    _add_attention(made.add_argument_group("attention"))
    _add_search(made.add_argument_group("search"))
    _add_model(made.add_argument_group("model"))
    _add_devices(made.add_argument_group("several devices"))
    return made


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--file", help="one text a line, UTF-8, also .gz; - (or piped input): standard input")
    add("--output", type=Path, metavar="FILE", help="written instead of standard output")
    add("--scores", action="store_true", help="the score before each output")
    truncate = "cut texts that are longer than the model's max_length; else they are an error"
    add("--truncate", action="store_true", help=truncate)
    languages = "codes of the languages, of a model that has several, as in eng_Latn,deu_Latn"
    add("--languages", metavar="SOURCE,TARGET", help=languages)
    skip = "give an empty output for texts that are longer than the model's max_length"
    add("--skip-long", action="store_true", help=skip)


def _add_attention(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    file = f"draw heat maps of the attention; {', '.join(PICTURES)}"
    add("--attention", type=Path, metavar="FILE", help=file)
    kind = "the decoder's over the source, the encoder's or the decoder's over itself [cross]"
    add("--attention-kind", choices=AttentionWeights._fields, help=kind)


def _add_search(group: argparse._ArgumentGroup) -> None:
    def add(flag: str, kind: type, metavar: str, text: str) -> None:
        default = argparse.SUPPRESS
        group.add_argument(flag, type=kind, metavar=metavar, help=text, default=default)

    rule = (
        "exact: goes on while a better output is possible; generate: as transformers' generate "
        "[as the model was published, else exact]"
    )
    group.add_argument("--rule", choices=RULES, help=rule, default=argparse.SUPPRESS)
    add("--beam", int, "N", f"width of the beam search; 1: greedy [{DEFAULT_BEAM}]")
    add("--length-penalty", float, "X", "larger prefers longer outputs, 0 does nothing [1.0]")
    add("--nbest", int, "N", "outputs for each text, best first; at least as wide a beam [1]")
    longest = (
        "most tokens of an output, at most the model's max_length [2 x source + 10, and more "
        "where --min-length says so]"
    )
    add("--max-length", int, "N", longest)
    add(
        "--min-length",
        int,
        "N",
        "fewest tokens of an output before its end; with --rule generate [0]",
    )
    early = "when a beam is done; with --rule generate [false]"
    group.add_argument("--early-stopping", choices=EARLY, help=early, default=argparse.SUPPRESS)
    repeated = "no N tokens in a row twice in an output; with --rule generate [0]"
    add("--no-repeat-ngram-size", int, "N", repeated)
    again = "above 1, tokens come less often again; with --rule generate [1.0]"
    add("--repetition-penalty", float, "X", again)
    sample = "draw the outputs at random instead of searching"
    group.add_argument("--sample", action="store_true", help=sample, default=argparse.SUPPRESS)
    add("--temperature", float, "X", "below 1 samples likely tokens more often [1.0]")
    add("--top-k", int, "N", "sample from the N likeliest tokens alone; 0: from all [0]")
    add("--seed", int, "N", "the same seed and text give the same sample [0]")


def _add_model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    backend = "framework [that of the run or folder if it is installed, else the other]"
    add("--backend", choices=("jax", "torch"), help=backend)
    step = "the best checkpoint, the newest where none is marked best, or that of a step [best]"
    add("--checkpoint", metavar="best|STEP", default=BEST, help=step)
    device = "where to compute; auto: an accelerator if there is one [auto]"
    add("--device", choices=("auto", "cpu", "gpu", "tpu"), default="auto", help=device)
    add("--batch-size", type=int, metavar="N", default=32, help="texts at once [32]")
    verify = "translate even where weights are not what was saved or converted"
    add("--no-verify", dest="verify", action="store_false", help=verify)


def _add_devices(group: argparse._ArgumentGroup) -> None:
    mesh = "data=N spreads the texts over N devices, --batch-size texts each; -1: all devices"
    for name, declaration in DEVICE_OPTIONS.items():
        choices = "{" + ",".join(declaration.choices) + "}"
        metavar = choices if declaration.choices else "N" if declaration.type is int else "TEXT"
        text = mesh if name == "mesh" else declaration.help
        shown = "" if declaration.default is None else f" [{declaration.default}]"
        group.add_argument(
            declaration.flag, help=text + shown, metavar=metavar, default=argparse.SUPPRESS
        )


def parse(arguments: list[str] | None, piped: bool) -> Request:
    """The request of a command line, all its faults in one UserError.

    ``piped`` says whether standard input is something else than a keyboard.
    """
    given = vars(parser().parse_intermixed_args(arguments))
    search = {name: given.pop(name) for name in SEARCH if name in given}
    texts = {name: given.pop(name) for name in DEVICE_OPTIONS if name in given}
    faults = Faults()
    devices = _devices(texts, faults)
    _check_input(given, piped, faults)
    _check_attention(given, faults)
    _check_numbers(given, faults)
    _check_search(search, faults)
    faults.raise_if_any("cannot translate")
    return Request(search=search, devices=devices, **given)


def _devices(texts: dict[str, str], faults: Faults) -> DeviceOptions:
    """What is said of devices and other processes."""
    options = device_options(texts, faults)
    if options.mesh is not None and not faults.messages:
        try:
            check_whole(read_mesh(options.mesh))
        except UserError as error:
            faults.take(error)
    return options


def _check_input(given: dict[str, Any], piped: bool, faults: Faults) -> None:
    """Settle where the texts come from."""
    texts, file = given["texts"], given["file"]
    faults.require(not (texts and file), "texts and --file are both given; give one of them")
    if not texts and file is None:
        faults.require(piped, "there is nothing to translate; give a text, --file or piped input")
        given["file"] = STANDARD_INPUT
    if given["output"]:
        check_output(given["output"], file, faults)
    both = given["truncate"] and given["skip_long"]
    faults.require(not both, "--truncate and --skip-long are both given; give one of them")


def _check_attention(given: dict[str, Any], faults: Faults) -> None:
    """Refuse pictures that could not be written, before anything is computed."""
    picture, kind = given["attention"], given["attention_kind"]
    given["attention_kind"] = kind or AttentionWeights._fields[0]
    if picture is None:
        faults.require(kind is None, "--attention-kind needs --attention FILE")
        return
    known = picture.suffix.lower() in PICTURES
    faults.require(known, f"--attention is {picture}; it must end with {' or '.join(PICTURES)}")
    exists = picture.parent.is_dir()
    faults.require(exists, f"--attention is {picture}; there is no folder {picture.parent}")
    free = picture != given["output"]
    faults.require(free, f"--attention and --output are both {picture}")


def _check_numbers(given: dict[str, Any], faults: Faults) -> None:
    size, checkpoint = given["batch_size"], given["checkpoint"]
    faults.require(size >= 1, f"--batch-size is {size}; it must be at least 1")
    known = checkpoint == BEST or (checkpoint.isascii() and checkpoint.isdecimal())
    faults.require(known, f"--checkpoint is {checkpoint!r}; it must be {BEST} or a step's number")


def _check_search(given: dict[str, Any], faults: Faults) -> None:
    """What is wrong with the search whatever the model's own is; that is looked at later."""
    if "early_stopping" in given:
        given["early_stopping"] = EARLY[given["early_stopping"]]
    if not given.get("sample"):
        for name, flag in ONLY_SAMPLING.items():
            faults.require(name not in given, f"{flag} needs --sample")
    generate = {"rule": GENERATE} if ONLY_GENERATE & given.keys() else {}
    try:
        check_search(search_of(None, generate | given))
    except UserError as error:
        faults.take(error)
