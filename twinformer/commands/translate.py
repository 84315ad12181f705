"""Translate texts with a model of either framework: ``twinformer translate --help``."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from training_recipe.options.extras import require
from training_recipe.options.joining import joining_of
from transformer_spec.door import exit_status, say
from transformer_spec.errors import UserError, printable
from twinformer.commands.output import opened
from twinformer.commands.translate_flags import Request, parse
from twinformer.translating.searching import check_asked

if TYPE_CHECKING:
    from training_recipe.distributed.processes import Processes, World
    from training_recipe.searching.search import Hypothesis, Search
    from twinformer.translating.attention import Pictures
    from twinformer.translating.translator import Translator

ONE_LINE = str.maketrans("\r\n", "  ")


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
    from twinformer.frameworks import choose, home_of

    try:
        home = home_of(request.run) if request.backend is None else None
        return choose(request.backend, home)[0], None
    except UserError as error:
        if joining_of(request.devices, request.device).mode != "jax":
            raise
        return "jax", error


def translate(request: Request, world: World) -> None:
    """Read, translate, write: the first process reads texts and writes, all translate."""
    from twinformer.frameworks import SHOWN, prepare_process

    translator = opened_by_all(request, world)
    search = translator.search_with(request.search)
    with world.processes.together():
        check_asked(search, request.search, translator.config)
        ids = read_ids(translator, request) if world.processes.first else None
    prepare_process(translator.backend, request.device)
    if request.backend is None and world.processes.first and sys.stderr.isatty():
        say(f"translating with {SHOWN[translator.backend]} (--backend {translator.backend})")
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
    if any(ids):
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
        self.pictures = make_pictures(ids, translator, search, request)
        self.output = stack.enter_context(opened(request.output, len(ids)))

    def add(self, block: list[list[Hypothesis]]) -> None:
        """Write the outputs of the next texts, whole lines at once, and draw them."""
        first = self.done + 1
        lines = [
            output_lines(number if self.numbered else None, found, self.translator, self.request)
            for number, found in enumerate(block, first)
        ]
        self.output.add(lines, len(block))
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
    ids: list[list[int]], translator: Translator, search: Search, request: Request
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
    attend, several = translator.attention, len(ids) > 1
    return Pictures(request.attention, kind, attend, both, config, search, several)


def progress(count: int, request: Request, processes: Processes):
    """A progress bar on a terminal that the outputs do not go to; of the first process alone."""
    from tqdm import tqdm

    shown = sys.stderr.isatty() and (request.output is not None or not sys.stdout.isatty())
    shown = shown and processes.first
    return tqdm(total=count, unit="text", disable=not shown or count < 2)
