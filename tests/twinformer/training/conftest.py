"""Whole runs to compare others with."""

import os
from pathlib import Path

import pytest
from training_cases import SMALL, run, write_words

from training_recipe.runs.curves import draw_curves
from twinformer.training import loop

MADE: dict[str, Path] = {}


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
