"""OWNER/NAME[@REVISION]: a repository of the Hugging Face Hub in place of a folder.

Cache, token, address and offline mode are huggingface_hub's own (HF_HOME, HF_TOKEN, HF_ENDPOINT,
HF_HUB_OFFLINE). Of a repository only what a conversion needs is got: settings, tokenizer, card and
licence, and one set of weights: the first in the order in which they are looked for in a folder.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from convert.checkpoints.folders.odd_places import BESIDE
from convert.formats.shards import INDEX_SUFFIX, shards_in
from convert.tokenizers.listing import MATCH, NAMES
from training_recipe.options.extras import missing
from transformer_spec import UserError
from transformer_spec.errors import printable_name, system_fault

HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@(.+))?")
LIBRARY = "huggingface_hub"
# Beside the weights: settings, tokenizers, cards and licences, by the ends of their names.
TEXTS = (
    ".json", ".txt", ".model", ".spm", ".yml", ".yaml", ".vocab", ".bpe", ".codes", ".md", ".jinja",
    ".tiktoken",
)  # fmt: skip
PLAIN = re.compile(r"(licen[cs]e|copying|notice|readme)[\w.-]*", re.IGNORECASE)
LOGS = ("trainer_state.json", "all_results.json", "train_results.json", "eval_results.json")
OUR_FOLDERS = ("vocabulary/", "original/")
RUNS = "runs"  # where training writes
LOGIN = "hf auth login, or HF_TOKEN, says who asks"


@dataclass(frozen=True)
class Repository:
    """What was got: the id, the revision that was asked for, its commit, the files left there."""

    id: str
    revision: str | None
    commit: str
    not_needed: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def name(self) -> str:
        """What names exactly this, wherever a repository is taken."""
        return f"{self.id}@{self.commit}"


def hub_name(path: Path) -> tuple[str, str | None] | None:
    """The id and the revision that a path may mean, or None; runs/NAME is a run of one's own."""
    found = HUB_ID.fullmatch(path.as_posix()) if path.parts[:1] != (RUNS,) else None
    return (found[1], found[2]) if found else None


def get(path: Path, models: Sequence[str], suffixes: Sequence[str]) -> tuple[Path, Repository]:
    """A folder with a repository's files; whatever prevents it is one UserError.

    ``path`` is an id that is not there as a path; ``models`` are the names of weights in the order
    in which they are looked for, ``suffixes`` those that a file of weights may have.
    """
    named = hub_name(path)
    assert named is not None
    id, revision = named
    if missing(LIBRARY):
        raise UserError(
            f"{path} does not exist; where it is a repository of the Hugging Face Hub, "
            "pip install 'twinformer[hub]' makes it be got from there"
        )
    with _quiet():
        from huggingface_hub import HfApi

        try:
            info = HfApi().model_info(id, revision=revision)
        except Exception as error:
            cached = _cached(id, revision, models) if _is_away(error) else None
            if cached is None:
                _refuse(error, path)
            return cached, Repository(id, revision, cached.name, note=_of_cache(id, error, cached))
        names = [sibling.rfilename for sibling in info.siblings or ()]
        return _download(path, str(info.sha), names, models, suffixes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A block in which the library shows bars, on a terminal, and says nothing besides."""
    from huggingface_hub import snapshot_download  # noqa: F401 - sets the level when it is imported
    from huggingface_hub.utils import disable_progress_bars

    logger = logging.getLogger(LIBRARY)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)


def _download(
    path: Path, commit: str, names: list[str], models: Sequence[str], suffixes: Sequence[str]
) -> tuple[Path, Repository]:
    from huggingface_hub import hf_hub_download, snapshot_download

    id, revision = hub_name(path) or ("", None)
    weights = weights_in(names, models, suffixes)
    if not weights:
        some = ", ".join(names[:8]) or "no file"
        raise UserError(f"{id} holds no weights that are read here; it holds {some}")
    try:
        for index in (name for name in weights if name.endswith(INDEX_SUFFIX)):
            place = Path(hf_hub_download(id, index, revision=commit))
            weights = [*weights, *(shard.name for shard in shards_in(place))]
        wanted = [name for name in names if _is_beside(name) or name in weights]
        patterns = [glob.escape(name) for name in wanted]
        folder = Path(snapshot_download(id, revision=revision, allow_patterns=patterns))
    except Exception as error:
        _refuse(error, path)
    if folder.name != commit:
        raise UserError(f"{path} got a new commit while it was got; do the same again")
    left = sorted(set(names) - set(wanted))
    return folder, Repository(id, revision, commit, left)


def weights_in(names: Sequence[str], models: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """The first of the usual names that is there, or the one file of weights under another.

    A folder among the usual names stands for all that is in it.
    """
    for model in models:
        found = [name for name in names if name == model or name.startswith(f"{model}/")]
        if found:
            return [*found, *(name for name in names if name == "kept_aside.safetensors")]
    top = [name for name in names if "/" not in name and not BESIDE.fullmatch(name)]
    others = [name for name in top if PurePosixPath(name).suffix in suffixes]
    return others if len(others) == 1 else []


def _is_beside(name: str) -> bool:
    """Whether a file is needed beside the weights."""
    if name.startswith(OUR_FOLDERS):
        return True
    if "/" in name or name.endswith(INDEX_SUFFIX) or name in LOGS:
        return False
    tokenizer = name in NAMES or MATCH.fullmatch(name)
    return name.endswith(TEXTS) or bool(tokenizer or PLAIN.fullmatch(name))


def _is_away(error: Exception) -> bool:
    """Whether the Hub was not asked or did not answer, so that the cache may stand in for it."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return True
    if isinstance(error, HfHubHTTPError):
        return (_status(error) or 0) >= 500
    return not isinstance(error, HFValidationError)


def _status(error: Any) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def cached_folder(path: Path, models: Sequence[str]) -> Path | None:
    """Where the cache holds what a path names on the Hub; None where it does not. Asks nobody."""
    named = hub_name(path)
    return None if named is None or missing(LIBRARY) else _cached(*named, models)


def _cached(id: str, revision: str | None, models: Sequence[str]) -> Path | None:
    """The folder in the cache where a revision was got before; None where it was not."""
    from huggingface_hub import try_to_load_from_cache

    for name in ("config.json", *models):
        found = try_to_load_from_cache(id, name, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def _of_cache(id: str, error: Exception, folder: Path) -> str:
    """What is said of reading a repository from the cache, ``folder`` being its files there."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    offline = isinstance(error, OfflineModeIsEnabled)
    why = "HF_HUB_OFFLINE is set" if offline else f"the Hub does not answer ({_reason(error)})"
    return f"{why}: what the cache holds of {id} is read{_unfinished(folder)}"


def _unfinished(folder: Path) -> str:
    """What is to be said where a download into the cache was broken off."""
    if not any((folder.parents[1] / "blobs").glob("*.incomplete")):
        return ""
    return ", and a download of it was broken off: files may be missing; get it again online"


def _refuse(error: Exception, path: Path) -> NoReturn:
    """One line on why nothing was got."""
    if isinstance(error, UserError):
        raise error
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, HfHubHTTPError):
        error = cause  # the Hub has answered; the library then speaks of the connection
    if isinstance(error, HFValidationError):
        raise UserError(f"{path} does not exist") from None
    id, revision = hub_name(path) or ("", None)
    told = _told(id, revision or "main", constants.ENDPOINT, error)
    raise UserError(f"{path} does not exist here, and {told}") from None


def _told(id: str, revision: str, endpoint: str, error: Exception) -> str:
    from huggingface_hub import errors

    says: list[tuple[type, Callable[[], str]]] = [
        (
            errors.OfflineModeIsEnabled,
            lambda: f"HF_HUB_OFFLINE is set and the cache does not hold {revision} of {id}",
        ),
        (
            errors.GatedRepoError,
            lambda: f"{id} is gated: ask for access at {endpoint}/{id}; then {LOGIN}",
        ),
        (
            errors.RevisionNotFoundError,
            lambda: f"the repository {id} of {endpoint} has no revision {printable_name(revision)}",
        ),
        (
            errors.RepositoryNotFoundError,
            lambda: f"{endpoint} has no repository {id}, or none for you: {LOGIN}",
        ),
    ]
    for kind, text in says:
        if isinstance(error, kind):
            return text()
    if _status(error) in (401, 403):
        return f"{endpoint} lets {id} not be read ({_reason(error)}): {LOGIN}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{id} cannot be kept: {system_fault(error)}"
    return f"{id} could not be got from {endpoint}: {_reason(error)}"


def _reason(error: Exception) -> str:
    """The first line of an error, with its kind where it says little."""
    status, lines = _status(error), str(error).strip().splitlines()
    first = lines[0] if lines else ""
    if status is not None:
        return f"status {status}"
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
