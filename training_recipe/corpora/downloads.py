"""Files of named corpora: downloaded once, checked by SHA-256, kept in the user's cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from training_recipe.corpora.named import NamedCorpus
from transformer_spec.errors import UserError

FOLDER_VARIABLE = "TWINFORMER_DATA"
MIRROR_VARIABLE = "TWINFORMER_MIRROR"
PATIENCE_SECONDS = 30
RETRIES = 1


def corpus_folder(name: str) -> Path:
    """Where the files of a corpus lie: TWINFORMER_DATA/NAME, else data/NAME in the user's cache."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() / name if chosen else cache_folder("data") / name


def cache_folder(name: str) -> Path:
    """A folder of the user's cache."""
    from pooch import os_cache

    return Path(os_cache("twinformer")) / name


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
    import pooch
    from requests import RequestException

    folder = corpus_folder(corpus.name)
    if not all((folder / file).exists() for file in corpus.files):
        print(f"{corpus.name}: {corpus.about}", file=sys.stderr)
    keeper = pooch.create(
        folder,
        base_url="",
        urls={file: url_of(corpus, file) for file in corpus.files},
        registry={file: published.sha256 for file, published in corpus.files.items()},
        retry_if_failed=RETRIES,
    )
    # Sent as it is, so that the bar knows the size.
    plain = {"Accept-Encoding": "identity"}
    bar = sys.stderr.isatty()
    # pooch's annotations do not fit its own downloaders.
    receive: Any = pooch.HTTPDownloader(progressbar=bar, timeout=PATIENCE_SECONDS, headers=plain)
    for file in corpus.files:
        try:
            keeper.fetch(file, downloader=receive)
        except (RequestException, ValueError) as error:  # ValueError: another hash
            failure = f"cannot download {url_of(corpus, file)}: {error}"
            raise UserError(f"{failure}\n{_by_hand(corpus, file, folder)}") from None
        except OSError as error:
            raise UserError(
                f"cannot keep {corpus.name} in {folder}: {error.strerror or error}; "
                f"set {FOLDER_VARIABLE} to a folder with room"
            ) from None
    return folder


def _by_hand(corpus: NamedCorpus, failed: str, folder: Path) -> str:
    absent = [file for file in corpus.files if file == failed or not (folder / file).exists()]
    addresses = "".join(f"\n  {url_of(corpus, file)} as {file}" for file in absent)
    return f"run again, or put these into {folder} by hand:{addresses}"
