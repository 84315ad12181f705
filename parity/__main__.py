"""python -m parity A B: whether two models are the same function; twins, train, verify, tpu"""

import importlib
import sys
from collections.abc import Sequence

COMMANDS = ("twins", "train", "verify", "tpu", "mutations")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where both are the same, 1 where not, 2 for a user's mistake, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    word = given[0] if given[:1] and given[0] in COMMANDS else None
    command = importlib.import_module(f"parity.commands.{word or 'compare'}")
    return command.main(given[1:] if word else given)


if __name__ == "__main__":
    sys.exit(main())
