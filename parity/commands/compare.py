"""``python -m parity A B``: whether two models are the same function."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convert.checkpoints.folders.hub import hub_name
from convert.commands.source import size
from parity.certificates.certificate import check_folder
from parity.commands.printing import check_page, check_picture, progress, seconds_of_code
from parity.comparison.settings import PRECISIONS, Settings
from parity.forward.ids import ANYWHERE, PADDING
from parity.frameworks import both_frameworks
from parity.sides.given import MODULE, exists, local_path, side_at_home, typed_path
from training_recipe.options.parser import Parser
from transformer_spec import Faults, UserError
from transformer_spec.door import exit_status
from transformer_spec.errors import printable

if TYPE_CHECKING:
    from parity.comparison.report import Report

DESCRIPTION = """Compare two models on this machine: every sub-step, the loss and every gradient in
float64, which tells a wrong conversion from rounding; then what float32 and bfloat16 round."""
EXAMPLES = """A and B:
  a run, a converted folder or a weight file of any family that python -m convert reads, with its
      flags in the same quotes where it needs some: "net.pt --num-heads 8 --map decoder.finalFc=out"
  hf:FOLDER                    the class of transformers itself
  module:FILE.py:FUNCTION      FUNCTION() returns a model of (source, target), or (model, config): a
                               torch or NNX module, a pytree or function that is called, and a
                               TransformerConfig or its fields (default: those of the other side)

other commands:
  python -m parity twins       both twins of this package on every kind of config
  python -m parity train       training steps of both side by side
  python -m parity verify      check a certificate
  python -m parity tpu         compile for a TPU without having one
  python -m parity mutations   what every known slip does to the numbers
  python -m parity names       search the table of names of a module of your own

exit status: 0 the same function, 1 not the same, 2 a mistake in what was given
"""
DEVICES = ("cpu", "gpu", "tpu")
# What is called otherwise in Python.
FLAGS = {"longest": "--length", "max_ram": "--max-ram", "seed": "--seed"}


def main(arguments: Sequence[str]) -> int:
    """0 where both are the same, 1 where not, 2 for a user's mistake, 130 when interrupted."""
    return exit_status(
        lambda: run(parser().parse_args(arguments)), "stopped before the comparison was complete"
    )


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    check(options, settings)
    # The frameworks take seconds to import, which --help must not wait for.
    with both_frameworks(givens=(options.a, options.b)):
        from parity.comparison.comparison import compare
    from parity.comparison.report import json_of
    from parity.comparison.text import as_text, verdict_line

    with progress() as say, seconds_of_code(options.module_timeout):
        report = compare(options.a, options.b, settings, say)
    print(json_of(report.to_dict()) if options.json else printable(as_text(report, options.full)))
    write(report, options)
    if not options.json:
        print(printable(verdict_line(report)))
    return 0 if report.same else 1


def settings_of(options: argparse.Namespace) -> Settings:
    return Settings(
        precisions=tuple(options.precision),
        gradients=options.gradients,
        explain=options.explain,
        longest=options.length,
        ids=options.ids,
        text=options.text,
        features=options.features,
        audio=options.audio,
        seed=options.seed,
        frameworks=(options.a_framework, options.b_framework),
        devices=(options.a_device or options.device, options.b_device or options.device),
        max_ram=options.max_ram,
        verify=options.verify,
        padding=options.padding,
    )


def check(options: argparse.Namespace, settings: Settings) -> None:
    """Every fault of what is asked for at once, before anything is read."""
    faults, of_settings = Faults(), Faults()
    settings.find_faults(of_settings)
    for fault in of_settings.messages:
        name, _, rest = fault.partition(" ")
        faults.add(f"{FLAGS.get(name, name)} {rest}")
    if options.plot is not None:
        check_picture(Path(options.plot), faults)
    if options.html is not None:
        check_page(Path(options.html), faults)
    if options.certificate or options.card:
        flag = "--certificate" if options.certificate else "--card"
        check_place(flag, options.b, faults)
    faults.raise_if_any("cannot compare")


def check_place(flag: str, b: str, faults: Faults) -> None:
    """A certificate and a card lie in B's folder."""
    if b.startswith(MODULE):
        faults.add(f"{flag}: it goes into the folder of a checkpoint, and B, {b}, is code")
        return
    if not exists(str(typed_path(b))) and hub_name(typed_path(b)) is not None:
        faults.add(f"{flag}: it goes into B's folder, and B, {b}, is none that is here")
        return
    try:
        check_folder(local_path(b))
    except UserError as error:
        faults.add(f"{flag}: {error}")


def write(report: Report, options: argparse.Namespace) -> None:
    """The picture, the page, the certificate and the card, and where they are."""
    said = sys.stderr if options.json else sys.stdout
    if options.plot:
        from parity.comparison.plot import plot

        print(f"picture: {plot(report, Path(options.plot))}", file=said)
    if options.html:
        print(f"page: {report.save_html(options.html)}", file=said)
    if options.certificate or options.card:
        from parity.certificates.card import write_card
        from parity.certificates.certificate import read_certificate, write_certificate

        folder = local_path(options.b)
        print(f"certificate: {write_certificate(folder, report)}", file=said)
        if options.card:
            print(f"card: {write_card(folder, read_certificate(folder))}", file=said)


def parser() -> argparse.ArgumentParser:
    result = Parser(
        prog="python -m parity",
        usage="python -m parity A B [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("a", type=side_at_home, metavar="A", help="the model to trust")
    result.add_argument("b", type=side_at_home, metavar="B", help="the model to check")
    add_inputs(result.add_argument_group("what to compare on"))
    add_measures(result.add_argument_group("what to compare"))
    add_places(result.add_argument_group("where to compute"))
    add_outputs(result.add_argument_group("what to write"))
    return result


def add_inputs(group: argparse._ArgumentGroup) -> None:
    own = group.add_mutually_exclusive_group()
    own.add_argument(
        "--text",
        metavar="FILE",
        help="texts, lines of source, tab, target (default: generated token ids)",
    )
    own.add_argument(
        "--ids", metavar="FILE", help='token ids, lines of {"source": [...], "target": [...]}'
    )
    own.add_argument(
        "--audio",
        metavar="FILE",
        help="a recording, of models that hear: its first 30 s; features by the extractor of A's "
        "or B's folder, or those of --features, are compared with this package's as well",
    )
    group.add_argument(
        "--features",
        metavar="FILE",
        help="of models that hear: .npy of floats [rows, frames, bins], or .npz with "
        "features and target, the ids of each row",
    )
    add = group.add_argument
    add("--length", type=int, metavar="N", help="longest generated text (default: the model's)")
    add("--seed", type=int, default=0, metavar="N", help="of the generated token ids [0]")
    add("--padding", choices=PADDING, default=ANYWHERE,
        help="where generated texts have it: anywhere, or behind their tokens alone, as batches "
        "of a tokenizer have it [anywhere]")  # fmt: skip
    add_module_timeout(group)
    add("--no-verify", dest="verify", action="store_false",
        help="compare even where weights are not what was saved or converted; after A or B in the "
        "same quotes: of that one")  # fmt: skip


def add_module_timeout(group: argparse._ActionsContainer) -> None:
    group.add_argument("--module-timeout", type=seconds, default=300, metavar="SECONDS",
        help="longest that FUNCTION of module:FILE.py:FUNCTION, or a call of its model, may take "
        "[300]")  # fmt: skip


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


def add_measures(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--precision", nargs="*", default=["float32", "bfloat16"], metavar="NAME",
        choices=PRECISIONS,
        help="of the error budget: float32, bfloat16, float16; one-pass-bfloat16 is what a TPU "
        "does with float32 unless asked for more, emulated by the Flax twin "
        "[float32 bfloat16]")  # fmt: skip
    add("--no-gradients", dest="gradients", action="store_false", help="compare outputs alone")
    add("--no-explain", dest="explain", action="store_false", help="do not look for the cause")


def add_places(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    for side in ("a", "b"):
        add(
            f"--{side}-framework",
            choices=("torch", "jax"),
            help=f"which twin runs {side.upper()} (default: the one whose names it has)",
        )
        add(f"--{side}-device", choices=DEVICES, help=f"where {side.upper()} runs")
    add("--device", choices=DEVICES, default="cpu", help="where both run [cpu]")
    add("--max-ram", type=size, metavar="SIZE",
        help="most memory to use, as in 8GB; where whole models in float64 do not fit, they are "
        "compared module by module (default: most of what is free)")  # fmt: skip


def add_outputs(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--full", action="store_true", help="show every sub-step and every gradient")
    add("--json", action="store_true", help="print the report as JSON")
    add("--plot", nargs="?", const="parity.png", metavar="FILE.png",
        help="draw the error of every sub-step [parity.png]")  # fmt: skip
    add("--html", nargs="?", const="parity.html", metavar="FILE.html",
        help="write a page for a browser: every row, curves, causes; it needs no network "
        "[parity.html]")  # fmt: skip
    add(
        "--certificate",
        action="store_true",
        help="write certificate.json into B's folder: the numbers, and hashes of its files but for "
        "README.md, the card and pictures",
    )
    add("--card", action="store_true", help="write PARITY.md for a model page as well")
