"""Folders as they lie on the Hub, made once for all tests and all processes that test.

The programs that make and serve them, and their texts, are not part of the project: tests that need
them are skipped where they are absent.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
MULTI30K = SHARED / "data" / "multi30k"
FAMILIES = (
    "marian", "marian-v5", "marian-multi", "marian-separate", "marian-flax", "bart", "bart-v5",
    "mbart", "mbart-v5", "mbart50", "mbart50-v5", "m2m100", "m2m100-v5", "nllb", "nllb-v5",
)  # fmt: skip


@cache
def program(name: str) -> ModuleType:
    """One of the programs beside the repository, as a module; a skip where it is absent."""
    path = SHARED / "reference" / f"{name}.py"
    if not path.is_file():
        pytest.skip(f"{path}, which makes what this test reads, is not here")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sentences(part: str, language: str) -> list[str]:
    """All sentences of a part of Multi30k ("train", "val", "test_2016_flickr"), or a skip."""
    import gzip

    path = MULTI30K / f"{part}.{language}.gz"
    if not path.is_file():
        pytest.skip(f"{path} of Multi30k is not here")
    return gzip.decompress(path.read_bytes()).decode().splitlines()


class HubFolders:
    """``folders("marian")`` is the path of that folder, made when it is first asked for.

    Folders are shared: ``folders.copy("marian", place)`` is one that a test may change.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def __call__(self, name: str) -> Path:
        folder, maker = self.place / name, program("make_opus_folder")
        if not (MULTI30K / "train.en.gz").is_file():
            pytest.skip(f"{MULTI30K}, of whose texts the folders are made, is not here")
        for needed in ("torch", "transformers", *(["flax"] if name == "marian-flax" else [])):
            pytest.importorskip(needed)
        with locked(self.place / f"{name}.lock"):
            if not folder.exists():
                _make(maker, name, folder)
        return folder

    def copy(self, name: str, place: Path) -> Path:
        return Path(shutil.copytree(self(name), place))


def _make(maker: ModuleType, name: str, folder: Path) -> None:
    import transformers

    aside = folder.with_name(f"{folder.name}.partial")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.disable_progress_bar()
        maker.FAMILIES[name](aside)
    os.replace(aside, folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def place_of_all(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one test run share."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place = base / "folders_of_hub"
    place.mkdir(exist_ok=True)
    return place
