"""Make more training pairs out of what trained models say: ``twinformer diversify --help``."""

from __future__ import annotations

import argparse
from pathlib import Path

from training_recipe.options.invocation import words
from training_recipe.options.parser import Formatter, Parser
from training_recipe.searching.search import Search
from transformer_spec.door import exit_status
from transformer_spec.errors import printable
from twinformer.requests import DEFAULT_BEAM
from twinformer.requests import DiversificationRequest as Request

TRAIN = words("train")
EPILOG = f"""\
Every RUN translates the sentences that it was trained on; the pairs of real sentences and outputs
are written beside each other to PREFIX.SOURCE and PREFIX.TARGET (or PREFIX.tsv for tables), in the
direction of the first RUN, without repetitions. The other runs may go in either direction; all need
the same data, so files of your own need --valid and --test when training. Train on these pairs too
for a better model of the same size (Nguyen et al. 2020, Data Diversification). Ctrl-C loses
nothing: the same command goes on.

example, English to German:
  {TRAIN} --data multi30k-en-de --preset small --name forward
  {TRAIN} --data multi30k-en-de --preset small --source-lang de --target-lang en --name back
  {words("diversify")} runs/forward runs/back --out more
  {TRAIN} --data multi30k-en-de --preset small --extra-data more --name better
"""


def main(arguments: list[str] | None = None) -> int:
    """Translate and write as the arguments say; the exit status."""
    said = "stopped before every sentence was translated; the same command goes on from here"
    return exit_status(lambda: run(parse(arguments)), said)


def run(request: Request) -> None:
    """Make the pairs and say where they are."""
    from twinformer.frameworks import choose, prepare_process
    from twinformer.translating.diversification import diversify

    for name in {choose(request.backend, run)[0] for run in request.runs}:
        prepare_process(name, request.device)
    made = diversify(request, show_progress=True)
    for note in made.notes:
        print(printable(note))
    files = " and ".join(map(str, made.files))
    print(f"{made.new:,} pairs beside {made.real:,} in {files}")


def parser() -> argparse.ArgumentParser:
    """Every flag once."""
    made = Parser(
        prog=words("diversify"),
        usage="%(prog)s RUN [RUN ...] --out PREFIX [--SETTING VALUE ...]",
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
    mesh = "data=N spreads the sentences over the N devices that JAX sees; -1: all"
    add("--mesh", metavar="TEXT", help=mesh)
    verify = "use weights even where they are not what was saved"
    add("--no-verify", dest="verify", action="store_false", help=verify)
    return made


def parse(arguments: list[str] | None) -> Request:
    """The request of a command line, all its faults in one UserError."""
    given = vars(parser().parse_args(arguments))
    search = Search(beam=given.pop("beam"), length_penalty=given.pop("length_penalty"))
    request = Request(tuple(given.pop("runs")), search=search, **given)
    request.check()
    return request
