"""Texts that say what to type follow how the program was called."""

import sys

import pytest

from training_recipe.options.invocation import as_called, words

HELP = "python -m convert inspect X, python -m convert A B --to flax, python -m parity train"


@pytest.mark.parametrize(
    ("called", "train", "convert", "helped"),
    [
        ("/x/train.py", "python train.py", "python -m convert", HELP),
        ("/x/convert/__main__.py", "python -m twinformer train", "python -m convert", HELP),
        (
            "/x/bin/twinformer", "twinformer train", "twinformer convert",
            "twinformer inspect X, twinformer convert A B --to flax, twinformer parity train",
        ),
        (
            "/x/twinformer/__main__.py", "python -m twinformer train",
            "python -m twinformer convert",
            "python -m twinformer inspect X, python -m twinformer convert A B --to flax, "
            "python -m twinformer parity train",
        ),
    ],
)  # fmt: skip
def test_words(called, train, convert, helped, monkeypatch):
    monkeypatch.setattr(sys, "argv", [called])
    assert (words("train"), words("convert"), as_called(HELP)) == (train, convert, helped)
