"""Faults of the command are told by its flags."""

import pytest
from messages import says

from parity.commands.compare import main


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--length", "0"), ("--length is 0", "at least 1")),
        (("--seed", "-1"), ("--seed is -1",)),
        (("--max-ram", "1XB"), ("1XB", "kB, MB, GB and TB")),
    ],
)
def test_flags(words, parts, capsys):
    assert main(["a", "b", *words]) == 2
    says(capsys.readouterr().err, *parts)
