"""python -m convert SOURCE DEST --to torch|flax|tutorial"""

import sys
from collections.abc import Sequence

from convert.conversion import describe, plan, run
from convert.options import parser
from transformer_spec import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 2 for a user's mistake, 130 when interrupted."""
    options = parser().parse_args(arguments)
    try:
        conversion = plan(options)
        if options.dry_run:
            print("\n".join(describe(conversion)))
        else:
            print(run(conversion, options.dest))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
