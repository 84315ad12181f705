"""What a side is called on the command line: a path with flags, hf:FOLDER, module:FILE:FUNCTION."""

import shlex
from pathlib import Path

from convert.checkpoints.folders.file_names import MODELS
from convert.checkpoints.folders.hub import cached_folder
from transformer_spec import UserError
from transformer_spec.paths import at_home

HUGGING_FACE = "hf:"
MODULE = "module:"
FLAG = " --"


def side_at_home(given: str) -> str:
    """A side with the ``~/`` of its path as a shell would have put it, had it not been hidden."""
    kind = next((kind for kind in (HUGGING_FACE, MODULE) if given.startswith(kind)), "")
    return kind + at_home(given.removeprefix(kind))


def local_path(given: str) -> Path:
    """The file or folder that has to be there for a side to be opened.

    A repository of the Hub that was got is its folder in the cache.
    """
    if given.startswith(MODULE):
        return Path(given.removeprefix(MODULE).rpartition(":")[0])
    path = typed_path(given)
    return path if exists(str(path)) else cached_folder(path, MODELS) or path


def typed_path(given: str) -> Path:
    """The path of a side, as it was typed."""
    plain = given.removeprefix(HUGGING_FACE)
    return Path(plain if plain != given else path_and_flags(given)[0])


def path_and_flags(given: str) -> tuple[str, str]:
    """The path, which is taken as it is, and the flags after it, as they were typed.

    All of it is the path where that exists, whatever is in it. Else flags begin at a `` --``: the
    first after a path that exists, or the first of all.
    """
    cuts = [cut for cut in range(len(given)) if given.startswith(FLAG, cut)] or [len(given)]
    cut = next((cut for cut in (len(given), *cuts) if exists(given[:cut])), cuts[0])
    return given[:cut], given[cut:]


def exists(path: str) -> bool:
    """Whether there is a file or folder; what is no possible name of one is none."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def words(flags: str) -> list[str]:
    """Flags as a shell would split them; a quotation that does not end is a UserError."""
    try:
        return shlex.split(flags)
    except ValueError as error:
        raise UserError(f"flags{flags} cannot be read: {error}") from None
