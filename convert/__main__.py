"""python -m convert SOURCE DEST --to torch|flax|tutorial"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from convert.conversion import describe, plan, run
from convert.options import parser
from transformer_spec import UserError
from transformer_spec.errors import exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 2 for a user's mistake, 130 when interrupted."""
    options = parser().parse_args(arguments)
    return exit_status(lambda: convert(options), "interrupted; nothing was written")


def convert(options: Namespace) -> None:
    """Do what the options say, or only say it."""
    try:
        conversion = plan(options)
        if options.dry_run:
            print("\n".join(describe(conversion)))
        else:
            print(run(conversion, options.dest))
    except OSError as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
