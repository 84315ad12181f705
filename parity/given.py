"""What a side is called on the command line: a path with flags, hf:FOLDER, module:FILE:FUNCTION."""

from pathlib import Path

HUGGING_FACE = "hf:"
MODULE = "module:"


def local_path(given: str) -> Path:
    """The file or folder that has to be there for a side to be opened."""
    if given.startswith(MODULE):
        return Path(given.removeprefix(MODULE).rpartition(":")[0])
    return Path(given.removeprefix(HUGGING_FACE).split(" --")[0])
