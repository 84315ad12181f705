"""twinformer train|translate|transcribe|diversify|convert|... = python -m twinformer"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

# What each command is, and whose main takes which words before the user's.
COMMANDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "train": ("train a model, or go on with a run", "twinformer.commands.train", ()),
    "translate": ("translate texts with a model", "twinformer.commands.translate", ()),
    "transcribe": ("write down what is said in recordings", "twinformer.commands.transcribe", ()),
    "diversify": ("make more training pairs by models", "twinformer.commands.diversify", ()),
    "convert": ("convert a model between frameworks and libraries", "convert.__main__", ()),
    "inspect": ("say what a checkpoint is", "convert.__main__", ("inspect",)),
    "average": ("average a run's checkpoints", "convert.__main__", ("average",)),
    "parity": ("prove that two models are the same function", "parity.__main__", ()),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; its exit status."""
    if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Imports take a while: until the command listens, Ctrl-C just ends the process.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["--version"], ["-V"]):
        from twinformer import __version__

        print(f"twinformer {__version__}")
        return 0
    if given[:1] == ["help"] and len(given) > 1:
        given = [*given[1:], "--help"]
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if given else 2
    if given[0] not in COMMANDS:
        return _unknown(given[0])
    _, module, before = COMMANDS[given[0]]
    return importlib.import_module(module).main([*before, *given[1:]])


def overview() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, (about, _, _) in COMMANDS.items()]
    usage = "usage: twinformer COMMAND [options]      twinformer COMMAND --help"
    return "\n".join([usage, "", "commands:", *lines, "", "twinformer --version"])


def _unknown(word: str) -> int:
    from training_recipe.options.usual_names import meant
    from transformer_spec.door import exit_status
    from transformer_spec.errors import UserError

    def fail() -> int:
        near = meant(word, COMMANDS)
        raise UserError(f"there is no command {word!r}; choose one of {', '.join(COMMANDS)}{near}")

    return exit_status(fail, "")


if __name__ == "__main__":
    sys.exit(main())
