"""Write down what is said in recordings: ``twinformer transcribe --help``."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_recipe.files.writing import check_folder, make_parent, replace_file
from transformer_spec.door import exit_status, say
from transformer_spec.errors import UserError, printable_name
from twinformer.commands.transcribe_flags import STANDARD_INPUT, Request, parse, stem_of
from twinformer.transcribing.formats import FORMATS, as_timed_text

if TYPE_CHECKING:
    from training_recipe.transcription.transcripts import Transcript
    from twinformer.transcribing.transcriber import Transcriber


def main(arguments: list[str] | None = None) -> int:
    """Transcribe as the arguments say; the exit status, 2 where a file cannot be read."""
    return exit_status(
        lambda: run(parse(arguments)), "stopped before every recording was transcribed"
    )


def run(request: Request) -> int:
    """Transcribe every file that can be read; 2 where there are others."""
    from twinformer.frameworks import SHOWN, prepare_process

    if request.output_dir is not None:
        check_folder(request.output_dir)
    transcriber = make_transcriber(request)
    transcriber.check(request.settings)
    for note in transcriber.notes:
        say(note)
    if request.backend is None and sys.stderr.isatty():
        say(f"transcribing with {SHOWN[transcriber.backend]} (--backend {transcriber.backend})")
    prepare_process(transcriber.backend, request.device)
    with standard_input(request.files) as files, progress(request) as bar:
        written, opened = Written(request), lengthening(bar)
        for number, found in transcriber.each(files, request.settings, bar.update, opened):
            with bar.external_write_mode(file=sys.stderr):
                written.add(number, found)
    return 2 if written.broken else 0


def make_transcriber(request: Request) -> Transcriber:
    """The transcriber of a request."""
    # Reading checkpoints takes imports that --help must not wait for.
    from twinformer.transcribing.transcriber import Transcriber

    return Transcriber(
        request.model,
        backend=request.backend,
        device=request.device,
        checkpoint=request.checkpoint,
        batch_size=request.batch_size,
        verify=request.verify,
    )


@contextlib.contextmanager
def standard_input(files: list[str]) -> Iterator[list[str]]:
    """The files, a copy of standard input in the place of its name: it is read twice."""
    if STANDARD_INPUT not in files:
        yield files
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "standard-input"
        with place.open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        if not place.stat().st_size:
            raise UserError("standard input is empty; -: gives a recording there")
        yield [str(place) if file == STANDARD_INPUT else file for file in files]


class Written:
    """What is printed or written; transcripts are printed in the order of their files."""

    def __init__(self, request: Request) -> None:
        self.request, self.broken = request, 0
        self.waiting: dict[int, Transcript | None] = {}
        self.next = 0
        if request.output_dir is None:
            sys.stdout.reconfigure(encoding="utf-8")  # pyright: ignore[reportAttributeAccessIssue]

    def add(self, number: int, found: Transcript | UserError) -> None:
        """Write a transcript, or say what is wrong with a file."""
        broken = isinstance(found, UserError)
        if broken:
            self.broken += 1
            say(f"error: {found}")
        else:
            for note in found.notes:
                say(f"warning: {note}")
        self.waiting[number] = None if broken else found
        if not broken and self.request.output_dir is not None:
            self._write(number, found, self.request.output_dir)
        while self.next in self.waiting:
            ready = self.waiting.pop(self.next)
            if ready is not None and self.request.output_dir is None:
                self._print(self.next, ready)
            self.next += 1

    def _write(self, number: int, found: Transcript, folder: Path) -> None:
        for name in self.request.formats:
            text = self._formatted(name, found)
            place = folder / f"{stem_of(self.request.files[number])}.{name}"
            make_parent(place)
            replace_file(place, lambda path, text=text: path.write_text(text, "utf-8", newline=""))

    def _print(self, number: int, found: Transcript) -> None:
        (name,) = self.request.formats
        several = len(self.request.files) > 1 and name == "txt"
        heading = f"{printable_name(self.request.files[number])}:\n" if several else ""
        print(heading + self._formatted(name, found), end="\n" if several else "", flush=True)

    def _formatted(self, name: str, found: Transcript) -> str:
        timed = name == "txt" and len(self.request.formats) == 1
        timed = timed and self.request.settings.timestamps
        return as_timed_text(found) if timed else FORMATS[name](found)


def progress(request: Request) -> Any:
    """A progress bar in seconds of sound, on a terminal that no transcript goes to."""
    from tqdm import tqdm

    shown = sys.stderr.isatty() and (request.output_dir is not None or not sys.stdout.isatty())
    layout = "{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}, {rate_fmt}]"
    return tqdm(total=0, unit="s", bar_format=layout, disable=not shown)


def lengthening(bar: Any) -> Any:
    """What tells a bar of one more recording."""

    def opened(seconds: float) -> None:
        bar.total += seconds
        bar.refresh()

    return opened
