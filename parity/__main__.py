"""python -m parity A B: whether two models are the same function; twins, train, verify, names"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

# What follows takes a while to import: until the command listens, Ctrl-C just ends it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))

COMMANDS = ("twins", "train", "verify", "tpu", "mutations", "names")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where both are the same, 1 where not, 2 for a user's mistake, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    word = given[0] if given[:1] and given[0] in COMMANDS else None
    command = importlib.import_module(f"parity.commands.{word or 'compare'}")
    return command.main(given[1:] if word else given)


if __name__ == "__main__":
    sys.exit(main())
