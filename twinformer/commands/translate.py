"""Translate texts with a model of either framework: ``twinformer translate --help``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from training_recipe.distributed.mesh import read_mesh
from training_recipe.options.extras import require
from training_recipe.options.invocation import words
from training_recipe.options.joining import (
    DEVICE_OPTIONS,
    DeviceOptions,
    check_whole,
    device_options,
    joining_of,
)
from training_recipe.options.parser import Formatter, Parser
from training_recipe.searching.attention import AttentionWeights
from training_recipe.searching.checks import RULES
from training_recipe.searching.search import GENERATE, Search, check_search
from transformer_spec.door import close_standard_output, exit_status
from transformer_spec.errors import Faults, UserError, printable, system_fault
from twinformer.translating.searching import DEFAULT_BEAM, search_of

if TYPE_CHECKING:
    from training_recipe.distributed.processes import Processes, World
    from training_recipe.searching.search import Hypothesis
    from twinformer.translating.attention import Pictures
    from twinformer.translating.translator import Translator

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
ONE_LINE = str.maketrans("\r\n", "  ")

EPILOG = f"""\
Each text or line gives one output line, an empty one an empty line; line breaks that a model
writes are spaces there. With --nbest N > 1 it gives up
to N lines, which begin with the number of the text and a tab. With --scores the score and a tab
stand before the output: sum of the log probabilities / length ** length penalty.

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


def main(arguments: list[str] | None = None) -> int:
    """Translate as the arguments say; the exit status."""
    piped = sys.stdin is not None and not sys.stdin.isatty()
    return exit_status(
        lambda: run(parse(arguments, piped)), "stopped before every text was translated"
    )


def run(request: Request) -> None:
    """Join the other processes, where there are any, before anything touches a device."""
    from twinformer.frameworks import joined

    joining = joining_of(request.devices, request.device)
    name, fault = framework(request) if joining.is_asked(os.environ) else ("", None)
    with joined(name, joining) as world:
        with world.processes.together():
            if fault is not None:
                raise fault
        translate(request, world)


def framework(request: Request) -> tuple[str, UserError | None]:
    """The backend by which to join others.

    Where there is no run to name it, JAX's processes are joined first, and told.
    """
    from convert.checkpoints.folders import locate
    from twinformer.frameworks import choose

    try:
        ours = request.backend is None and request.run.exists()
        return choose(request.backend, locate(request.run).home if ours else None)[0], None
    except UserError as error:
        if joining_of(request.devices, request.device).mode != "jax":
            raise
        return "jax", error


def translate(request: Request, world: World) -> None:
    """Read, translate, write: the first process reads texts and writes, all translate."""
    from twinformer.frameworks import prepare_process

    translator = opened_by_all(request, world)
    search = translator.search_with(request.search)
    with world.processes.together():
        check_search(search)
        ids = read_ids(translator, request) if world.processes.first else None
    prepare_process(translator.backend, request.device)
    write_outputs(world.processes.broadcast(ids), translator, search, request)


def opened_by_all(request: Request, world: World) -> Translator:
    """The translator, opened by the first process before the others: what it downloads is theirs.

    Processes with other settings, versions or files are a UserError.
    """
    processes, made = world.processes, None
    for turn in (True, False):
        with processes.together():
            if processes.first == turn:
                made = make_translator(request, world)
    assert made is not None
    if processes.count > 1:
        from twinformer.training.agreement import versions

        asked = {"--batch-size": request.batch_size, "the search": repr(request.search)}
        asked |= {"the model's config": made.config, "the backend": made.backend}
        asked |= {"--attention": request.attention is not None}
        processes.agree("settings, models or versions", asked | versions())
    return made


def make_translator(request: Request, world: World) -> Translator:
    """The translator of a request."""
    # Reading vocabularies and checkpoints takes imports that --help must not wait for.
    from twinformer.translating.translator import Translator

    return Translator(
        request.run,
        backend=request.backend,
        device=request.device,
        checkpoint=request.checkpoint,
        batch_size=request.batch_size,
        verify=request.verify,
        languages=request.languages,
        world=world,
    )


def read_ids(translator: Translator, request: Request) -> list[list[int]]:
    """The token ids of all texts; what there is to say of them is said."""
    from twinformer.translating.texts import read_texts

    texts = read_texts(request.texts, request.file)
    sources = translator.encode(texts, request.truncate, request.skip_long)
    for note in [*sources.notes, *translator.notes]:
        print(printable(note), file=sys.stderr)
    return sources.ids


def write_outputs(
    ids: list[list[int]], translator: Translator, search: Search, request: Request
) -> None:
    """Decode, write and draw, block by block."""
    if ids:
        _ = translator.model  # what is wrong with it is said before a file is written
    processes = translator.world.processes
    with contextlib.ExitStack() as stack:
        with processes.together():
            written = Written(ids, translator, search, request, stack) if processes.first else None
        bar = stack.enter_context(progress(len(ids), request, processes))
        for block in translator.decode(ids, search, bar.update):
            with processes.together():
                if written is not None:
                    written.add(block)
    for note in written.notes() if written is not None else ():
        print(printable(note), file=sys.stderr)


class Written:
    """What the first process writes and draws."""

    def __init__(
        self,
        ids: list[list[int]],
        translator: Translator,
        search: Search,
        request: Request,
        stack: contextlib.ExitStack,
    ) -> None:
        self.ids, self.translator, self.request = ids, translator, request
        self.numbered, self.done = search.nbest > 1, 0
        self.pictures = make_pictures(ids, translator, request)
        self.stream = stack.enter_context(opened(request.output))

    def add(self, block: list[list[Hypothesis]]) -> None:
        """Write the outputs of the next texts, whole lines at once, and draw them."""
        first = self.done + 1
        lines = (
            output_lines(number if self.numbered else None, found, self.translator, self.request)
            for number, found in enumerate(block, first)
        )
        with saying_where(self.request.output):
            self.stream.write("".join(lines))
            self.stream.flush()
        for number, found in enumerate(block, first):
            if self.pictures is not None:
                self.pictures.draw(number, self.ids[number - 1], found[0])
        self.done += len(block)

    def notes(self) -> list[str]:
        """What there is to say in the end."""
        return self.pictures.notes() if self.pictures is not None else []


def output_lines(
    number: int | None, outputs: list[Hypothesis], translator: Translator, request: Request
) -> str:
    """What is written for a text: a line for each output, columns between tabs, a number first."""
    lines = []
    for output in outputs:
        columns = [] if number is None else [str(number)]
        columns += [f"{output.score:.4f}"] if request.scores else []
        text = translator.target.decode(output.ids).translate(ONE_LINE)
        lines.append("\t".join([*columns, text]) + "\n")
    return "".join(lines)


def make_pictures(
    ids: list[list[int]], translator: Translator, request: Request
) -> Pictures | None:
    """What draws the attention of each text, if that is asked for."""
    if request.attention is None:
        return None
    from training_recipe.searching.attention import layer_count
    from twinformer.translating.attention import Pictures

    require("train", "--attention", "matplotlib")
    config, kind = translator.config, request.attention_kind
    if layer_count(kind, config) == 0:
        raise UserError(f"--attention-kind {kind}: the model has no layer with such attention")
    both = translator.source, translator.target
    return Pictures(request.attention, kind, translator.attention, both, config, len(ids) > 1)


def progress(count: int, request: Request, processes: Processes):
    """A progress bar on a terminal that the outputs do not go to; of the first process alone."""
    from tqdm import tqdm

    shown = sys.stderr.isatty() and (request.output is not None or not sys.stdout.isatty())
    shown = shown and processes.first
    return tqdm(total=count, unit="text", disable=not shown or count < 2)


@contextlib.contextmanager
def opened(path: Path | None) -> Iterator[TextIO]:
    """The output file or standard output, in UTF-8 whatever the system's language."""
    with saying_where(path):
        if path is None:
            sys.stdout.reconfigure(encoding="utf-8")  # pyright: ignore[reportAttributeAccessIssue]
            yield sys.stdout
        else:
            with path.open("w", encoding="utf-8", newline="\n") as stream:
                yield stream


@contextlib.contextmanager
def saying_where(path: Path | None) -> Iterator[None]:
    """A block whose OSErrors are of the output file or of standard output."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if path is None:
            close_standard_output()
        where = "to standard output" if path is None else f"--output {path}"
        reason = OSError(error.errno, error.strerror) if error.strerror else error
        raise UserError(f"cannot write {where}: {system_fault(reason)}") from None


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
    longest = "most tokens of an output, at most the model's max_length [2 x source + 10]"
    add("--max-length", int, "N", longest)
    add("--min-length", int, "N", "fewest tokens of an output; with --rule generate [0]")
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
    backend = "framework [the one that wrote the run if it is installed, else the other]"
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
    if given["output"] and file and given["output"].exists() and Path(file).exists():
        same = given["output"].samefile(file)
        faults.require(not same, f"--output {file} is the input and would be overwritten")
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
