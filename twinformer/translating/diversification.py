"""More training pairs out of what models say to their own training sentences.

Data diversification, one round (Nguyen et al. 2020, "Data Diversification: A Simple Strategy For
Neural Machine Translation", section 3): models of both directions translate their side of the
training data, and every new pair of a real sentence and an output is one more to train on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convert.checkpoints import load_weights_of
from training_recipe.corpora.corpus import load_corpus
from training_recipe.corpora.named import NAMED_CORPORA
from training_recipe.corpora.text_files import DELIMITERS, Pair
from training_recipe.files.writing import replace_file
from training_recipe.options.settings import TrainingSettings
from training_recipe.runs.record import RunRecord
from training_recipe.searching.batches import decode_all, within
from transformer_spec import Faults, UserError
from twinformer.requests import DiversificationRequest
from twinformer.translating.translator import Translator

BLOCK = 512
HELD_OUT = (
    " (without files for --valid and --test, other pairs are held out in the other direction: "
    "name both when training)"
)


@dataclass(frozen=True)
class Diversification:
    """What was made: the files, the numbers of new and of real pairs, and a note on each run."""

    files: tuple[Path, ...]
    new: int
    real: int
    notes: tuple[str, ...]


def diversify(request: DiversificationRequest, *, show_progress: bool = False) -> Diversification:
    """Have every run translate what it was trained on, and write the new pairs.

    What was translated is kept beside the destination until all is, so that the same request goes
    on where it stopped. Raises UserError where a file would be overwritten, and where runs have
    other data or say nothing new.
    """
    request.check()
    records = [RunRecord.load(path / "settings.json") for path in request.runs]
    check_free(files_of(request.out, records[0].settings))
    pairs = pairs_of_all(request.runs, records)
    ways = directions(request.runs, pairs)
    kept = [_kept(request.out, number) for number in range(1, len(records) + 1)]
    said = [
        translated(path, record, own, place, request, show_progress)
        for path, record, own, place in zip(request.runs, records, pairs, kept, strict=True)
    ]
    new, notes = new_pairs(pairs[0], list(zip(ways, said, strict=True)))
    if not new:
        raise UserError("the models say nothing but what is in the data; there is nothing to write")
    files = write_pairs(request.out, new, records[0].settings)
    for place in kept:
        place.unlink()
    named = (
        f"{path}, {'backwards' if backwards else 'forwards'}: {note}"
        for path, backwards, note in zip(request.runs, ways, notes, strict=True)
    )
    return Diversification(tuple(files), len(new), len(pairs[0]), tuple(named))


def _kept(prefix: Path, number: int) -> Path:
    return prefix.with_name(f".{prefix.name}.outputs-{number}")


def translated(
    path: Path,
    record: RunRecord,
    pairs: Sequence[Pair],
    place: Path,
    request: DiversificationRequest,
    show_progress: bool,
) -> dict[str, str]:
    """What the model of a run says to each source of its pairs that is not too long."""
    from tqdm import tqdm

    translator = Translator(
        path, backend=request.backend, device=request.device, verify=request.verify,
        mesh=request.mesh,
    )  # fmt: skip
    config, search = translator.config, request.search
    ids = {text: translator.source.encode(text) for text, _ in pairs}
    frame = translator.source.frame
    texts = [
        text for text, tokens in ids.items() if len(tokens) + frame.size <= config.max_source_length
    ]
    weights = load_weights_of(path, verify=request.verify)[1]
    arrays = (weights[name].tobytes() for name in sorted(weights))
    kept = Kept(place, key_of(record, arrays, repr(search), texts))
    rows = within(record.settings.batch_tokens * translator.world.mesh.devices, search.beam)

    def say(block: Sequence[str]) -> list[str]:
        sources = [ids[text] for text in block]
        found = decode_all(
            translator.decode_batch, sources, search, rows, config,
            frame=frame, workers=translator.workers,
        )  # fmt: skip
        return [translator.target.decode(hypotheses[0].ids) for hypotheses in found]

    disable = None if show_progress else True
    with tqdm(total=len(texts), unit="sentence", desc=path.name, disable=disable) as bar:
        for done in say_all(texts, kept, say):
            bar.update(done)
    return dict(zip(texts, kept.outputs, strict=True))


def pairs_of_all(runs: Sequence[Path], records: Sequence[RunRecord]) -> list[list[Pair]]:
    """The pairs that each run was trained on; one UserError names every run that has none."""
    faults, pairs = Faults(), list[list[Pair]]()
    for path, record in zip(runs, records, strict=True):
        try:
            pairs.append(training_pairs(record.settings))
        except UserError as error:
            for fault in error.faults:
                faults.add(f"{path}: {fault}")
    faults.raise_if_any("cannot make training pairs")
    return pairs


def training_pairs(settings: TrainingSettings) -> list[Pair]:
    """The pairs of text a run was trained on, without its extra ones, each once, in order.

    Raises UserError where the data cannot be read or is not parallel text.
    """
    corpus = load_corpus(
        settings.data,
        source_lang=settings.source_lang,
        target_lang=settings.target_lang,
        columns=settings.columns,
        valid=settings.valid,
        test=settings.test,
    )
    if corpus.task != "translation":
        raise UserError(f"it was trained on {corpus.name}, which is no parallel text")
    return list(dict.fromkeys((pair.source, pair.targets[0]) for pair in corpus.train))


def turned(pairs: Iterable[Pair]) -> list[Pair]:
    """The same pairs in the other direction."""
    return [(target, source) for source, target in pairs]


def directions(runs: Sequence[Path], pairs: Sequence[list[Pair]]) -> list[bool]:
    """For each run whether it translates backwards, as the first one translates forwards.

    Raises UserError that names every run with other data than the first one's.
    """
    forwards, backwards = set(pairs[0]), set(turned(pairs[0]))
    faults = Faults()
    for run, own in zip(runs, map(set, pairs), strict=True):
        same = own in (forwards, backwards)
        faults.require(same, f"{run} was trained on other pairs than {runs[0]}, in no direction")
    faults.raise_if_any(f"the runs need the same data{HELD_OUT}")
    return [set(own) != forwards for own in pairs]


def new_pairs(
    real: Sequence[Pair], outputs: Sequence[tuple[bool, dict[str, str]]]
) -> tuple[list[Pair], list[str]]:
    """The pairs of real sentences and outputs, forwards, and a note on each run's.

    ``outputs`` are, for each run, whether it goes backwards and what it says to each sentence.
    Left out are empty outputs and pairs that are there already.
    """
    known, notes = dict.fromkeys(real), []
    for backwards, said in outputs:
        before = len(known)
        pairs = [(source, output) for source, output in said.items() if output]
        known |= dict.fromkeys(turned(pairs) if backwards else pairs)
        notes.append(f"{len(known) - before:,} new pairs of {len(said):,} outputs")
    return list(known)[len(dict.fromkeys(real)) :], notes


class Kept:
    """Outputs that are written as they come, so that an interrupted command goes on with them.

    ``key`` says what the outputs are of; a file of another key is begun anew.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.head = path, json.dumps({"outputs_of": key})
        lines = self._lines()
        if lines[:1] != [self.head]:
            path.write_text(self.head + "\n", encoding="utf-8")
        self.outputs = lines[1:] if lines[:1] == [self.head] else []

    def _lines(self) -> list[str]:
        """The whole lines of the file; what a sudden end left of the last one is cut off."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self.path.write_bytes(whole)
        return whole.decode("utf-8", "replace").split("\n")[:-1]

    def add(self, outputs: Sequence[str]) -> None:
        """Write more outputs."""
        with self.path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.writelines(f"{output}\n" for output in outputs)
        self.outputs += outputs


def say_all(
    texts: Sequence[str], kept: Kept, say: Callable[[Sequence[str]], list[str]]
) -> Iterator[int]:
    """What a model says to each text, block by block into ``kept``; yields how many were done."""
    yield len(kept.outputs)
    while len(kept.outputs) < len(texts):
        first = len(kept.outputs)
        block = texts[first : first + BLOCK]
        kept.add([" ".join(output.split()) for output in say(block)])
        yield len(block)


def key_of(record: RunRecord, weights: Iterable[bytes], search: str, texts: Sequence[str]) -> str:
    """A hash of all that outputs depend on."""
    digest = hashlib.sha256(f"{record.data_fingerprint} {search}".encode())
    for part in weights:
        digest.update(part)
    digest.update("\n".join(texts).encode())
    return digest.hexdigest()


def write_pairs(prefix: Path, pairs: Sequence[Pair], settings: TrainingSettings) -> list[Path]:
    """Write pairs in the form of the data of ``settings``: parallel files, or a .tsv table."""
    columns, paths = _columns(settings), files_of(prefix, settings)
    if columns:
        _write(paths[0], _table(columns, pairs))
        return paths
    for path, side in zip(paths, zip(*pairs, strict=True), strict=True):
        _write(path, side)
    return paths


def files_of(prefix: Path, settings: TrainingSettings) -> list[Path]:
    """The files that ``write_pairs`` writes."""
    if _columns(settings):
        return [prefix.with_name(f"{prefix.name}.tsv")]
    named, languages = (
        NAMED_CORPORA.get(settings.data),
        (settings.source_lang, settings.target_lang),
    )
    languages = languages if any(languages) or named is None else named.languages
    return [prefix.with_name(f"{prefix.name}.{language}") for language in languages]


def _columns(settings: TrainingSettings) -> Sequence[str] | None:
    named = NAMED_CORPORA.get(settings.data)
    return settings.columns or (named.columns if named else None)


def check_free(paths: Sequence[Path]) -> None:
    """Raise one UserError that names every file that is there already."""
    there = [str(path) for path in paths if os.path.lexists(path)]
    if there:
        raise UserError(
            f"{' and '.join(there)} would be overwritten; name another --out, or remove them"
        )


def _table(columns: Sequence[str], pairs: Sequence[Pair]) -> Iterator[str]:
    """The lines of a table that has the pairs in columns of these names or numbers."""
    numbered = all(column.isdecimal() for column in columns)
    places = [int(column) - 1 for column in columns] if numbered else [0, 1]
    tab = DELIMITERS[".tsv"]
    if not numbered:
        yield tab.join(columns)
    for pair in pairs:
        row = [""] * (max(places) + 1)
        for place, text in zip(places, pair, strict=True):
            quoted = any(mark in text for mark in '"\t\r\n')
            row[place] = f'"{text.replace(chr(34), chr(34) * 2)}"' if quoted else text
        yield tab.join(row)


def _write(path: Path, lines: Iterable[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    replace_file(path, lambda aside: aside.write_text(text, encoding="utf-8", newline="\n"))
