"""What is best in a run that goes back, or goes on judged otherwise."""

import json

import pytest
from messages import says
from training_cases import SMALL, metrics, run, write_words

from training_recipe.runs.folder import RunFolder
from twinformer.training.evaluation import judge

EVERY_THIRD = [
    *SMALL, "--valid-examples", "0", "--evaluate-every", "3", "--save-every", "3", "--name", "a",
]  # fmt: skip


@pytest.fixture
def losses(monkeypatch):
    """A function: the held-out losses that come next."""

    def come(*values: float) -> None:
        left = iter(values)
        monkeypatch.setattr(judge, "held_out_loss", lambda *_: next(left))

    return come


def bests(folder) -> list[int]:
    """The steps that were the best so far."""
    return [line["step"] for line in metrics(folder) if line.get("best")]


def test_the_best_of_a_step_that_is_gone_back_behind(place, quick, losses, capsys) -> None:
    """Step 9 is better than 3, which goes; then 9 is gone back behind."""
    losses(2.0, 3.0, 1.0, 5.0)
    assert run("numpy", EVERY_THIRD) == 0
    folder = RunFolder(place / "runs/a")
    assert folder.steps() == [9, 12]
    losses(2.0, 3.0, 1.0, 5.0)
    assert run("numpy", [*EVERY_THIRD, "--name", "b", "--keep", "3"]) == 0
    folder = RunFolder(place / "runs/b")
    assert folder.steps() == [6, 9, 12] and bests(folder.path) == [3, 9]
    losses(4.0, 5.0)
    assert run("numpy", ["--resume", "runs/b", "--from-step", "6"]) == 0
    says(capsys.readouterr().out, "step_00000003, the best until then, is there no more")
    assert bests(folder.path) == [3, 9] and metrics(folder.path)[-1]["step"] == 9
    assert folder.best_or_newest().name == "step_00000009"


def test_other_pairs_to_validate_by(place, quick, losses, capsys) -> None:
    """Losses do not compare with those on other pairs; those that the run stands at are new."""
    (place / "other").mkdir()
    write_words(place / "other", count=50)
    judged = ["--valid", "words.tsv", "--test", "words.tsv", "--steps", "6"]
    losses(2.0, 1.0)
    assert run("numpy", [*EVERY_THIRD, *judged]) == 0
    capsys.readouterr()
    losses(9.0, 8.0)
    again = ["--resume", "runs/a", "--steps", "9", "--valid", "other/words.tsv"]
    assert run("numpy", again) == 0
    says(capsys.readouterr().out, "note: the pairs to validate by", "best so far is forgotten")
    assert bests(place / "runs/a") == [3, 6, 6, 9]
    losses(9.5)
    again = ["--resume", "runs/a", "--steps", "12", "--test", "other/words.tsv"]
    assert run("numpy", again) == 0
    said = capsys.readouterr().out
    says(said, "note: the pairs to test by")
    assert "forgotten" not in said and bests(place / "runs/a") == [3, 6, 6, 9]
    assert metrics(place / "runs/a")[-1]["step"] == 9


def test_another_tokenizer_of_bleu(place, quick, capsys) -> None:
    assert run("numpy", [*SMALL, "--name", "a"]) == 0
    before = (place / "runs/a/settings.json").read_text()
    assert run("numpy", ["--resume", "runs/a", "--bleu-tokenize", "13b"]) == 2
    says(capsys.readouterr().err, "13b")
    assert (place / "runs/a/settings.json").read_text() == before
    assert run("numpy", ["--resume", "runs/a", "--bleu-tokenize", "char", "--steps", "15"]) == 0
    says(capsys.readouterr().out, "how they are judged", "best so far is forgotten")
    found = [m for m in metrics(place / "runs/a") if m["kind"] == "evaluation"]
    again = next(number for number, line in enumerate(found) if number and not line["since_best"]
                 and line["step"] == 12 and found[number - 1]["step"] == 12)  # fmt: skip
    assert found[again]["best"]
    assert (
        json.loads((place / "runs/a/settings.json").read_text())["settings"]["bleu_tokenize"]
        == "char"
    )
