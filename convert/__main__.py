"""python -m convert SOURCE DEST --to FAMILY, python -m convert inspect CHECKPOINT, ... average"""

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from convert.average_command import AVERAGE, average
from convert.average_command import parser as average_parser
from convert.conversion import describe, plan, run
from convert.inspection import inspect
from convert.options import INSPECT, inspect_parser, parser
from transformer_spec import UserError
from transformer_spec.errors import exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 2 for a user's mistake, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status(lambda: run_command(given), "interrupted; nothing was written")


def run_command(given: list[str]) -> None:
    """Read the arguments by the parser of the command that they name, and do it."""
    if given[:1] == [INSPECT]:
        show(inspect_parser().parse_args(given[1:]))
    elif given[:1] == [AVERAGE]:
        write_mean(average_parser().parse_args(given[1:]))
    else:
        convert(parser().parse_args(given))


def show(options: Namespace) -> None:
    """Print what a checkpoint is."""
    _said(lambda: inspect(options))


def write_mean(options: Namespace) -> None:
    """Average checkpoints, and say which."""
    _said(lambda: average(options))


def convert(options: Namespace) -> None:
    """Do what the options say, or only say it."""
    if options.dry_run:
        _said(lambda: "\n".join(describe(plan(options))))
    else:
        _said(lambda: run(plan(options), options.dest))


def _said(work: Callable[[], str]) -> None:
    try:
        print(work(), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
