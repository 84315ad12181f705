"""python -m convert SOURCE DEST --to FAMILY, python -m convert inspect CHECKPOINT, ... average"""

import sys
from collections.abc import Callable, Sequence

from convert.commands import averaging, conversion, inspection
from transformer_spec import UserError
from transformer_spec.errors import exit_status

# By the word that comes first; a conversion has none.
COMMANDS: dict[str, Callable[[Sequence[str]], str]] = {
    "inspect": inspection.run,
    "average": averaging.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when done, 2 for a user's mistake, 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status(lambda: _run(words), "interrupted; nothing was written")


def _run(words: list[str]) -> None:
    try:
        if words and words[0] in COMMANDS:
            print(COMMANDS[words[0]](words[1:]), flush=True)
        else:
            print(conversion.run(words), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
