"""python -m convert SOURCE DEST --to FAMILY, python -m convert inspect, names, average ..."""

import os
import signal
import sys
from collections.abc import Callable, Sequence

# What follows takes a while to import: until the command listens, Ctrl-C just ends it.
if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))

from convert.commands import averaging, conversion, inspection, names
from transformer_spec.door import exit_status
from transformer_spec.errors import printable

# By the word that comes first; a conversion has none.
COMMANDS: dict[str, Callable[[Sequence[str]], str]] = {
    "inspect": inspection.run,
    "average": averaging.run,
    "names": names.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 2 for a user's mistake, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status(lambda: _run(words), "interrupted; nothing was written")


def _run(words: list[str]) -> None:
    command = COMMANDS.get(words[0]) if words else None
    print(printable(command(words[1:]) if command else conversion.run(words)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
