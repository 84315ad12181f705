"""``python -m parity tpu``: the JAX backend's programs, compiled for TPU chips that are not there.

Google's TPU compiler (libtpu) needs no TPU. It runs in a process of its own, because it takes its
settings from the environment at its start and JAX must not look for a TPU beside it.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from parity.certificate import report_json
from parity.tpu_report import text_of, verdict
from training_recipe.options.parser import Parser
from transformer_spec import Faults, TransformerConfig, UserError
from transformer_spec.errors import exit_status

Rows = Generator[dict[str, Any], None, None]

PROGRAMS = ("forward", "gradients", "optimizer", "decoding")
CHIPS = (1, 4)
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is claimed, so another JAX may have libtpu loaded
    "TPU_LOG_DIR": "disabled",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
BASE_VOCABULARY = 10_000
BASE_LENGTH = 60
EXAMPLES = """\
examples:
  python -m parity tpu                         the base size, two to five minutes on two cores
  python -m parity tpu runs/NAME --batch 32    the model of a run or of a converted folder
  python -m parity tpu --precision bfloat16    a fast mode; the check of precision must fail
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
    made.add_argument("--batch", type=int, default=64, help="rows of a batch (default: 64)")
    made.add_argument(
        "--length", type=int, default=None, metavar="TOKENS",
        help=f"tokens of a row (default: {BASE_LENGTH}, or the model's longest)",
    )  # fmt: skip
    made.add_argument("--beam", type=int, default=1, help="outputs kept in decoding (default: 1)")
    made.add_argument(
        "--chips", type=int, nargs="+", choices=CHIPS, default=list(CHIPS),
        help="sizes of the slice, over which the batch is divided (default: 1 4)",
    )  # fmt: skip
    made.add_argument(
        "--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS),
        help="what to compile (default: everything)",
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
    made.add_argument("--json", action="store_true", help="print everything as JSON")
    return made


def run(options: argparse.Namespace) -> int:
    check_compiler()
    request = request_of(options)
    rows = []
    with contextlib.closing(compile_apart(request, environment(options.precision))) as compiled:
        for row in compiled:
            rows.append(row)
            if not options.json:
                print("\n".join(text_of(row)), flush=True)
    passed = all(row["passed"] for row in rows)
    if options.json:
        report = {"format_version": 1, **request, "rows": rows, "passed": passed}
        print(report_json(report))
    else:
        print(verdict(rows, request))
    return 0 if passed else 1


def check_compiler(platform: str = sys.platform) -> None:
    """A UserError that says what is missing, where the compiler cannot be had."""
    if platform != "linux":
        raise UserError(
            f"Google publishes the TPU compiler, libtpu, for Linux only; this is {platform}"
        )
    if importlib.util.find_spec("libtpu") is None or importlib.util.find_spec("jax") is None:
        raise UserError(
            "the TPU compiler is not installed: pip install 'twinformer[tpu]', best in an "
            "environment of its own, since JAX looks for a TPU wherever libtpu is installed"
        )


def request_of(options: argparse.Namespace) -> dict[str, Any]:
    """What is asked of the compiler, in JSON types; every fault of the sizes in one UserError."""
    config = config_of(options.source)
    length = options.length
    if length is None:
        length = min(BASE_LENGTH, config.max_length)
    faults = Faults()
    for name, value in (("--batch", options.batch), ("--beam", options.beam), ("--length", length)):
        faults.require(value >= 1, f"{name} {value} must be at least 1")
    longest = config.max_length
    faults.require(length <= longest, f"--length {length}: the model's longest is {longest}")
    for chips in options.chips:
        message = f"--batch {options.batch} cannot be divided over {chips} chips; see --chips"
        faults.require(options.batch % chips == 0, message)
    faults.raise_if_any("cannot compile")
    chosen = vars(options)
    return {
        "config": config.to_dict(),
        "length": length,
        **{name: chosen[name] for name in ("batch", "beam", "chips", "programs", "effort")},
    }


def config_of(source: Path | None) -> TransformerConfig:
    """The config of a run, a converted folder or a file; without one the base size."""
    if source is None:
        from training_recipe.options.presets import PRESETS

        words = dict.fromkeys(("source_vocab_size", "target_vocab_size"), BASE_VOCABULARY)
        return TransformerConfig.from_dict(PRESETS["base"]["model"] | words)
    if source.suffix == ".json":
        return TransformerConfig.load(source)
    from convert.checkpoints.folders import locate

    home = locate(source).home
    if home is None:
        raise UserError(f"{source} has no config.json of ours; give a run or a converted folder")
    return TransformerConfig.load(home / "config.json")


def environment(precision: str | None) -> dict[str, str]:
    """The environment of the compiler's process."""
    chosen = {} if precision is None else {"JAX_DEFAULT_MATMUL_PRECISION": precision}
    return os.environ | ENVIRONMENT | chosen


def compile_apart(request: dict[str, Any], environment: dict[str, str]) -> Rows:
    """The rows that the compiler's process writes, one by one; its failure is a UserError.

    Whatever ends the caller early ends the process too.
    """
    command = [sys.executable, "-m", "parity.tpu_compile", json.dumps(request)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(command, env=environment, stderr=said, **pipes) as process:
            try:
                yield from map(json.loads, process.stdout or ())
                process.wait()
            finally:
                process.kill()
        if process.returncode:
            said.seek(0)
            end = "\n".join(said.read().splitlines()[-15:])
            status = process.returncode
            raise UserError(f"the TPU compiler's process failed with status {status}:\n{end}")


if __name__ == "__main__":
    sys.exit(main())
