"""Make more training pairs out of what trained models say: ``python diversify.py --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training_recipe.options.parser import Formatter, Parser
from training_recipe.searching.search import Search, check_search
from transformer_spec import Faults, UserError
from transformer_spec.errors import exit_status

if TYPE_CHECKING:
    from training_recipe.corpora.text_files import Pair
    from training_recipe.runs.record import RunRecord

DEFAULT_BEAM = 5
EPILOG = """\
Every RUN translates the sentences that it was trained on; the pairs of real sentences and outputs
are written beside each other to PREFIX.SOURCE and PREFIX.TARGET (or PREFIX.tsv for tables), in the
direction of the first RUN, without repetitions. The other runs may go in either direction; all need
the same data, so files of your own need --valid and --test when training. Train on these pairs too
for a better model of the same size (Nguyen et al. 2020, Data Diversification). Ctrl-C loses
nothing: the same command goes on.

example, English to German:
  python train.py --data multi30k-en-de --preset small --name forward
  python train.py --data multi30k-en-de --preset small --source-lang de --target-lang en --name back
  python diversify.py runs/forward runs/back --out more
  python train.py --data multi30k-en-de --preset small --extra-data more --name better
"""


@dataclass(frozen=True)
class Options:
    """What one call of diversify.py asks for."""

    runs: list[Path]
    out: Path
    beam: int
    length_penalty: float
    backend: str | None
    device: str

    @property
    def search(self) -> Search:
        """How outputs are searched for."""
        return Search(beam=self.beam, length_penalty=self.length_penalty)


def main(arguments: list[str] | None = None) -> int:
    """Translate and write as the arguments say; the exit status."""
    said = "stopped before every sentence was translated; the same command goes on from here"
    return exit_status(lambda: run(parse(arguments)), said)


def parser() -> argparse.ArgumentParser:
    """Every flag once."""
    made = Parser(
        prog="diversify.py",
        usage="diversify.py RUN [RUN ...] --out PREFIX [--SETTING VALUE ...]",
        description="Make more training pairs out of what models say to their training sentences.",
        epilog=EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("runs", metavar="RUN", type=Path, nargs="+", help="run folders, of either framework")
    out = "the pairs are written to PREFIX.SOURCE and PREFIX.TARGET, or PREFIX.tsv for tables"
    add("--out", type=Path, metavar="PREFIX", required=True, help=out)
    beam = f"width of the beam search; 1: greedy [{DEFAULT_BEAM}]"
    add("--beam", type=int, metavar="N", default=DEFAULT_BEAM, help=beam)
    penalty = "larger prefers longer outputs, 0 does nothing [1.0]"
    add("--length-penalty", type=float, metavar="X", default=1.0, help=penalty)
    add("--backend", choices=("jax", "torch"), help="framework [the one that wrote each run]")
    device = "where to compute; auto: an accelerator if there is one [auto]"
    add("--device", choices=("auto", "cpu", "gpu", "tpu"), default="auto", help=device)
    return made


def parse(arguments: list[str] | None) -> Options:
    """The options of a command line, all its faults in one UserError."""
    options = Options(**vars(parser().parse_args(arguments)))
    faults = Faults()
    for path in options.runs:
        settings = path / "settings.json"
        faults.require(settings.is_file(), f"{path} is no run folder: it has no settings.json")
    parent = options.out.parent
    faults.require(parent.is_dir(), f"--out is {options.out}; there is no folder {parent}")
    try:
        check_search(options.search)
    except UserError as error:
        faults.add(str(error))
    faults.raise_if_any("cannot make training pairs")
    return options


def run(options: Options) -> None:
    """Read the data, translate it by every run, write the new pairs."""
    from training_recipe.runs.record import RunRecord
    from twinformer.translating.diversification import (
        directions,
        new_pairs,
        training_pairs,
        write_pairs,
    )

    records = [RunRecord.load(path / "settings.json") for path in options.runs]
    pairs = [training_pairs(record.settings) for record in records]
    ways = directions(options.runs, pairs)
    works = zip(options.runs, records, pairs, strict=True)
    kept = [_kept(options.out, number) for number in range(1, len(records) + 1)]
    said = [
        translated(path, record, own, place, options)
        for (path, record, own), place in zip(works, kept, strict=True)
    ]
    new, notes = new_pairs(pairs[0], list(zip(ways, said, strict=True)))
    for path, backwards, note in zip(options.runs, ways, notes, strict=True):
        print(f"{path}, {'backwards' if backwards else 'forwards'}: {note}")
    if not new:
        raise UserError("the models say nothing but what is in the data; there is nothing to write")
    written = write_pairs(options.out, new, records[0].settings)
    for place in kept:
        place.unlink()
    print(f"{len(new):,} pairs beside {len(pairs[0]):,} in {' and '.join(map(str, written))}")


def _kept(prefix: Path, number: int) -> Path:
    return prefix.with_name(f".{prefix.name}.outputs-{number}")


def translated(
    path: Path, record: RunRecord, pairs: Sequence[Pair], place: Path, options: Options
) -> dict[str, str]:
    """What the model of a run says to each source of its pairs that is not too long."""
    from tqdm import tqdm

    from convert.checkpoints import load_weights_of
    from training_recipe.searching.batches import decode_all, within
    from training_recipe.text.model_vocabularies import load_vocabularies
    from translate import load_backend
    from twinformer.translating.diversification import Kept, key_of, say_all

    search = options.search
    config, weights = load_weights_of(path)
    source, target = load_vocabularies(path / "vocabulary", config)
    ids = {text: source.encode(text) for text, _ in pairs}
    texts = [text for text, tokens in ids.items() if len(tokens) < config.max_length]
    arrays = (weights[name].tobytes() for name in sorted(weights))
    kept = Kept(place, key_of(record, arrays, repr(search), texts))
    backend = load_backend(options.backend, options.device, path, path)
    rows = within(record.settings.batch_tokens, search.beam)

    def say(block: Sequence[str]) -> list[str]:
        found = decode_all(backend.decode, [ids[text] for text in block], search, rows, config)
        return [target.decode(hypotheses[0].ids) for hypotheses in found]

    with tqdm(total=len(texts), unit="sentence", desc=path.name, disable=None) as bar:
        for done in say_all(texts, kept, say):
            bar.update(done)
    return dict(zip(texts, kept.outputs, strict=True))


if __name__ == "__main__":
    sys.exit(main())
