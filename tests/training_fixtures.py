"""Fixtures of the tests that train; a test module takes them by assignment."""

import os
from pathlib import Path

import pytest
from training_cases import SMALL, run, write_words

from training_recipe.runs.curves import draw_curves
from twinformer.training import loop

MADE: dict[str, Path] = {}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with data, the current one."""
    write_words(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A function: the run folder of a backend's run that nobody interrupted, made once."""

    def get(name: str) -> Path:
        if name not in MADE:
            folder, before = tmp_path_factory.mktemp("whole"), os.getcwd()
            write_words(folder)
            os.chdir(folder)
            try:
                with pytest.MonkeyPatch.context() as patch:  # whatever ``quick`` has put there
                    patch.setattr(loop, "draw_curves", draw_curves)
                    assert run(name, [*SMALL, "--name", name]) == 0
            finally:
                os.chdir(before)
            MADE[name] = folder / "runs" / name
        return MADE[name]

    return get


@pytest.fixture
def quick(monkeypatch):
    """Neither drawing nor waiting for the disk, which take longer than these runs."""
    monkeypatch.setattr(loop, "draw_curves", lambda run: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
