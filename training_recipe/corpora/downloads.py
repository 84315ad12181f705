"""Files of named corpora: downloaded once, checked by SHA-256, kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_recipe.corpora.named import NamedCorpus
from transformer_spec.errors import UserError

if TYPE_CHECKING:
    from pooch import Pooch

FOLDER_VARIABLE = "TWINFORMER_DATA"
MIRROR_VARIABLE = "TWINFORMER_MIRROR"
CHUNK_BYTES = 1 << 16
PATIENCE_SECONDS = 30
RETRIES = 1
# Nothing that still arrives is as old: a connection that is silent for 30 s is given up.
LEFTOVER_SECONDS = 3600


def corpus_folder(name: str) -> Path:
    """Where the files of a corpus lie: TWINFORMER_DATA/NAME, else data/NAME in the user's cache."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / name
    from pooch import os_cache

    return Path(os_cache("twinformer")) / "data" / name


def url_of(corpus: NamedCorpus, file: str) -> str:
    """Where a file comes from: TWINFORMER_MIRROR/NAME/FILE, else where it is published."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    return f"{mirror.rstrip('/')}/{corpus.name}/{file}" if mirror else corpus.files[file].url


def fetch(corpus: NamedCorpus) -> Path:
    """The folder with every file of a corpus as it was published; what is missing is downloaded.

    Each file arrives under another name and gets its own once its hash is right, so that nothing
    is ever half there; files that did arrive are not downloaded again. Raises one UserError that
    says what failed, from where, and how the files are put there by hand.
    """
    folder = corpus_folder(corpus.name)
    try:
        missing = [file for file in corpus.files if not _is_published(folder, corpus, file)]
        if missing:
            _remove_leftovers(folder)
            _download(corpus, missing, folder)
    except OSError as error:
        raise UserError(
            f"cannot keep {corpus.name} in {folder}: {error.strerror or error}; "
            f"set {FOLDER_VARIABLE} to a folder with room"
        ) from None
    return folder


def _is_published(folder: Path, corpus: NamedCorpus, file: str) -> bool:
    """Whether a file is there, byte by byte; one that is there and differs is said aloud."""
    if not (folder / file).exists():
        return False
    found, expected = _sha256(folder / file), corpus.files[file].sha256
    if found != expected:
        _say(f"{folder / file} has sha256 {found}, not {expected}: it is downloaded again")
    return found == expected


def _sha256(path: Path | str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left; the files of one that still downloads are young."""
    for path in folder.glob("tmp*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def _download(corpus: NamedCorpus, missing: list[str], folder: Path) -> None:
    import pooch
    from requests import RequestException

    _say(f"downloading {corpus.name} to {folder}: {corpus.about}")
    pooch.get_logger().setLevel(logging.WARNING)
    keeper = pooch.create(
        folder,
        base_url="",
        urls={file: url_of(corpus, file) for file in missing},
        registry={file: corpus.files[file].sha256 for file in missing},
        retry_if_failed=RETRIES,
    )
    # pooch's annotations fit neither its downloaders nor its progress bars.
    receive: Any = _receive
    for number, file in enumerate(missing):
        try:
            keeper.fetch(file, downloader=receive)
        except RequestException as error:
            failure = f"cannot download {keeper.get_url(file)}: {_reason(error)}"
            raise UserError(f"{failure}\n{_by_hand(keeper, missing[number:])}") from None
        except UserError as error:
            raise UserError(f"{error}\n{_by_hand(keeper, missing[number:])}") from None


def _receive(url: str, path: str, keeper: Pooch) -> None:
    """Download a file, with a bar on a terminal, and check what arrived."""
    from pooch import HTTPDownloader
    from requests import HTTPError
    from tqdm import tqdm

    file = next(name for name, known in keeper.urls.items() if known == url)
    hidden = not sys.stderr.isatty()
    # pooch sets the total; a bar without one has no truth value, which pooch asks for.
    bar: Any = tqdm(desc=file, total=1, unit="B", unit_scale=True, disable=hidden)
    # Sent as it is, so that the bar knows the size.
    plain = {"Accept-Encoding": "identity"}
    receive = HTTPDownloader(bar, CHUNK_BYTES, headers=plain, timeout=PATIENCE_SECONDS)
    try:
        with bar:
            receive(url, path, keeper)
    except HTTPError as error:
        if error.response is not None:
            error.response.close()
        raise
    found, expected = _sha256(path), keeper.registry[file]
    if found != expected:
        raise UserError(
            f"{url} is not the file that was published: its sha256 is {found}, not {expected}; "
            "nothing of it is kept. It was changed on the way or by its owner"
        )


def _reason(error: Exception) -> str:
    """The answer of the server, or what is at the bottom of a chain of exceptions."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}"
    bottom: BaseException = error
    while bottom.__context__ is not None:
        bottom = bottom.__context__
    return f"the connection fails: {getattr(bottom, 'strerror', None) or bottom}"


def _by_hand(keeper: Pooch, missing: list[str]) -> str:
    addresses = "".join(f"\n  {keeper.get_url(file)} as {file}" for file in missing)
    return (
        f"run again, or put {'this file' if len(missing) == 1 else 'these files'} into "
        f"{keeper.abspath} by hand:{addresses}"
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr)
