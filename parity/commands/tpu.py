"""``python -m parity tpu``: the JAX programs, compiled for TPU chips that are not there."""

import argparse
import contextlib
from pathlib import Path

from parity.comparison.report import json_of
from parity.tpu.report import Compiled, text_of, verdict
from parity.tpu.request import (
    BASE_LENGTH,
    BASE_VOCABULARY,
    PROGRAMS,
    TOPOLOGIES,
    Request,
    check_compiler,
    compile_apart,
    config_of,
    longest_row,
)
from training_recipe.options.parser import Parser
from transformer_spec.door import exit_status

EXAMPLES = """\
examples:
  python -m parity tpu                         the base size, two to five minutes on two cores
  python -m parity tpu runs/NAME --batch 32    the model of a run or of a converted folder
  python -m parity tpu --precision bfloat16    a fast mode; the check of precision must fail
  python -m parity tpu big.json --topology 4x4 --mesh fsdp=16 --gradient-checkpointing
                                               does it fit, cut over 16 chips?
"""


def main(arguments: list[str] | None = None) -> int:
    """Compile and report; 0 where every program fits and multiplies in full float32, 1 where one
    does not, 2 for a user's mistake.
    """
    return exit_status(
        lambda: run(parser().parse_args(arguments)), "stopped before every program was compiled"
    )


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="python -m parity tpu",
        description="Compile forward pass, training step and decoding loop of the Flax twin for "
        "TPU v5e chips, without a TPU; print cost, memory and the precision of every product.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "source", nargs="?", type=Path, metavar="SOURCE",
        help="a run, a converted folder or a config.json, of which only the config is used; "
        f"without it: the base size, {BASE_VOCABULARY:,} words",
    )  # fmt: skip
    _add_sizes(made.add_argument_group("what is compiled"))
    _add_chips(made.add_argument_group("for what, and how"))
    made.add_argument("--json", action="store_true", help="print everything as JSON")
    return made


def _add_sizes(made: argparse._ArgumentGroup) -> None:
    made.add_argument("--batch", type=int, default=64, help="rows of a batch (default: 64)")
    made.add_argument(
        "--length", type=int, default=None, metavar="TOKENS",
        help=f"tokens of a row (default: {BASE_LENGTH}, or the model's longest); a source of "
        "features has all frames that the model takes",
    )  # fmt: skip
    made.add_argument("--beam", type=int, default=1, help="outputs kept in decoding (default: 1)")
    made.add_argument(
        "--gradient-checkpointing",
        action="store_true",
        help="layers are computed again for the gradient, as train.py does it",
    )
    made.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32",
        help="of products in training, as for train.py (default: float32)",
    )  # fmt: skip
    made.add_argument(
        "--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS),
        help="what to compile (default: everything)",
    )  # fmt: skip


def _add_chips(made: argparse._ArgumentGroup) -> None:
    made.add_argument(
        "--topology", nargs="+", metavar="AxB", default=list(TOPOLOGIES),
        help="slices of v5e chips, over which the batch is divided: 4x4 has 16 chips (default: 1x1 "
        "2x2)",
    )  # fmt: skip
    made.add_argument(
        "--mesh", metavar="data=N,fsdp=N",
        help="how the chips stand, as for train.py (default: data=-1, every chip has all weights)",
    )  # fmt: skip
    made.add_argument(
        "--precision", choices=("highest", "high", "bfloat16"),
        help="of float32 products: six, three or one bfloat16 pass (default: what "
        "JAX_DEFAULT_MATMUL_PRECISION says, else highest); only highest passes",
    )  # fmt: skip
    made.add_argument(
        "--effort", choices=("low", "full"), default="low",
        help="low: compile without the search for the fastest form of each product, twenty times "
        "as fast; full: as for a real TPU (default: low)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    check_compiler()
    request = request_of(options)
    rows = []
    with contextlib.closing(compile_apart(request)) as compiled:
        for content in compiled:
            rows.append(Compiled.from_dict(content))
            if not options.json:
                print("\n".join(text_of(rows[-1])), flush=True)
    passed = all(row.passed for row in rows)
    if options.json:
        found = {"rows": [row.to_dict() for row in rows], "passed": passed}
        print(json_of({"format_version": 3, **request.to_dict(), **found}))
    else:
        print(verdict(rows, request))
    return 0 if passed else 1


def request_of(options: argparse.Namespace) -> Request:
    """What is asked of the compiler; every fault of the sizes in one UserError."""
    config = config_of(options.source)
    request = Request(
        config,
        min(BASE_LENGTH, longest_row(config)) if options.length is None else options.length,
        options.batch,
        options.beam,
        tuple(options.topology),
        options.mesh,
        {
            "gradient_checkpointing": options.gradient_checkpointing,
            "dtype": options.dtype,
            "device": "tpu",
        },
        tuple(options.programs),
        options.effort,
        options.precision,
    )
    request.check()
    return request
