"""The command line of ``python -m parity A B``."""

import argparse
from pathlib import Path

from convert.commands.source import size
from training_recipe.options.parser import Parser
from transformer_spec import Faults

DESCRIPTION = """Compare two models on this machine: every sub-step, the loss and every gradient in
float64, which tells a wrong conversion from rounding; then what float32 and bfloat16 round."""
EXAMPLES = """A and B:
  a run, a converted folder or a weight file of any family that python -m convert reads, with its
      flags in the same quotes where it needs some: "net.pt --num-heads 8 --map decoder.finalFc=out"
  hf:FOLDER                    the class of transformers itself
  module:FILE.py:FUNCTION      FUNCTION() returns (model, config): a torch module, or a function of
                               (source, target), and a TransformerConfig or its fields

other commands:
  python -m parity twins       both twins of this package on every kind of config
  python -m parity train       training steps of both side by side
  python -m parity verify      check a certificate
  python -m parity tpu         compile for a TPU without having one
  python -m parity mutations   what every known slip does to the numbers

exit status: 0 the same function, 1 not the same, 2 a mistake in what was given
"""


DEVICES = ("cpu", "gpu", "tpu")


def parser() -> argparse.ArgumentParser:
    result = Parser(
        prog="python -m parity",
        usage="python -m parity A B [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("a", metavar="A", help="the model to trust")
    result.add_argument("b", metavar="B", help="the model to check")
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
    add = group.add_argument
    add("--length", type=int, metavar="N", help="longest generated text (default: the model's)")
    add("--seed", type=int, default=0, metavar="N", help="of the generated token ids [0]")


def add_measures(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--precision", nargs="*", default=["float32", "bfloat16"], metavar="NAME",
        choices=("float32", "bfloat16", "float16", "one-pass-bfloat16"),
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
    add(
        "--certificate",
        action="store_true",
        help="write certificate.json into B's folder, over every file that is there",
    )
    add("--card", action="store_true", help="write PARITY.md for a model page as well")


def check_picture(path: Path, faults: Faults) -> None:
    """What --plot is given must be a PNG in a folder that is there."""
    faults.require(path.suffix == ".png", f"--plot {path} must end in .png")
    faults.require(path.parent.is_dir(), f"--plot {path}: there is no folder {path.parent}")
