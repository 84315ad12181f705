"""The command ``twinformer``: which words lead where."""

import pytest
from messages import says

from twinformer.__main__ import COMMANDS, main


@pytest.mark.parametrize("words", [["help"], ["--help"], []])
def test_every_command_is_named(words, capsys):
    assert main(words) == (0 if words else 2)
    lines = capsys.readouterr().out.splitlines()
    assert {*COMMANDS} <= {line.split()[0] for line in lines if line.startswith("  ")}


@pytest.mark.parametrize("order", [("help", "average"), ("average", "--help")])
def test_the_help_of_one_command(order, capsys):
    with pytest.raises(SystemExit) as ended:
        main(order)
    assert ended.value.code == 0
    says(capsys.readouterr().out, "usage:", "average", "--last")


@pytest.mark.parametrize("words", [["transalte", "x"], ["help", "transalte"]])
def test_a_word_that_is_no_command(words, capsys):
    assert main(words) == 2
    said = capsys.readouterr()
    says(said.err, "'transalte'", "did you mean translate?")
    assert not said.out
