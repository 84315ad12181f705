"""``train.py --init FOLDER``: the model as it came, validated, trained on, resumed anywhere."""

import json
import os
import shutil

import numpy as np
import pytest
from messages import says
from training_cases import (
    SMALL,
    arrays,
    assert_same_run,
    halve_a_file,
    launch,
    metrics,
    run,
    signal_after,
)

from convert.checkpoints import load_weights_of
from convert.conversion.opening import open_model

BEGUN = [
    *("--data", "words.tsv", "--columns", "word,sound", "--device", "cpu", "--dropout", "0.2"),
    *("--batch-tokens", "128", "--batch-shapes", "2", "--peak-lr", "0.05", "--valid-examples", "4"),
    *("--log-every", "3", "--evaluate-every", "2", "--save-every", "2", "--steps", "4"),
]
FIRST, NEWEST = "checkpoints/step_00000000", "checkpoints/step_00000004"
pytestmark = pytest.mark.usefixtures("quick")


def begun(base, *more: str) -> list[str]:
    return ["--init", str(base), *BEGUN, *more, "--name", "a"]


def evaluations(folder) -> list[dict]:
    return [record for record in metrics(folder) if record["kind"] == "evaluation"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, whole):
    """A run that began with another, and the other."""
    from training_cases import write_words

    folder, before, base = tmp_path_factory.mktemp("begun"), os.getcwd(), whole("torch")
    write_words(folder)
    os.chdir(folder)
    try:
        assert run("torch", begun(base)) == 0
    finally:
        os.chdir(before)
    return folder / "runs" / "a", base


def test_it_is_validated_and_kept_as_it_came(trained):
    folder, base = trained
    assert [record["step"] for record in evaluations(folder)] == [0, 2, 4]
    first = metrics(folder)[0]
    assert first["kind"] == "evaluation" and first["best"] and first["loss"] > 0
    came, kept = load_weights_of(base)[1], load_weights_of(folder / FIRST)[1]
    assert came.keys() == kept.keys()
    assert all(np.array_equal(came[name], kept[name]) for name in came)
    assert json.loads((folder / FIRST / "progress.json").read_text())["step"] == 0


def test_everything_of_the_model_but_dropout_comes_along(trained):
    folder, base = trained
    ours, theirs = (json.loads((f / "config.json").read_text())["model"] for f in (folder, base))
    assert ours == theirs | {"dropout": 0.2}
    for file in (base / "vocabulary").iterdir():
        assert (folder / "vocabulary" / file.name).read_bytes() == file.read_bytes()
    settings = json.loads((folder / "settings.json").read_text())["settings"]
    assert settings["init"] == str(base) and settings["padding_gradient"] is True


def test_the_rates_of_dropout_are_the_model_s_unless_given(place, whole):
    arguments = [word for word in BEGUN if word not in ("--dropout", "0.2")]
    status = run("torch", ["--init", str(whole("torch")), *arguments, "--steps", "2", "--out", "b"])
    assert status == 0
    assert json.loads((place / "b/config.json").read_text())["model"]["dropout"] == 0.2


def test_where_nothing_is_better_the_model_as_it_came_is_the_best(place, whole, capsys):
    assert run("torch", begun(whole("torch"), "--peak-lr", "1e-12")) == 0
    assert os.readlink("runs/a/best") == FIRST
    said = capsys.readouterr().out
    assert "validation of the model as it came" in said
    assert "test of the model as it came, than which none was better" in said
    assert metrics(place / "runs/a")[-1]["step"] == 0
    assert any("step 0: the model as it came" in note for note in open_model("runs/a").notes)
    newest = open_model("runs/a", checkpoint=4)
    assert not any("as it came" in note for note in newest.notes)


@pytest.mark.parametrize("step", [1, 3])
def test_it_goes_on_without_the_folder(step, trained, place):
    base = shutil.copytree(trained[1], place / "base", symlinks=True)
    assert run("torch", begun(base), signal_after(step)) == 130
    shutil.rmtree(base)
    assert run("torch", ["--resume", "runs/a"]) == 0
    assert_same_run(place / "runs/a", trained[0])


def test_killed_behind_the_first_validation(trained, place):
    killed = launch("torch", "SIGKILL@saved:1", begun(trained[1]), place)
    assert killed.returncode < 0
    assert (place / "runs/a" / FIRST).is_dir() and not (place / "runs/a" / NEWEST).exists()
    assert run("torch", ["--resume", "runs/a"]) == 0
    assert_same_run(place / "runs/a", trained[0])


def test_from_its_first_step_again(trained, place):
    shutil.copytree(trained[0], "runs/a", symlinks=True)
    assert run("torch", ["--resume", "runs/a", "--from-step", "0"]) == 0
    assert metrics(place / "runs/a") == metrics(trained[0])
    ours, expected = arrays(place / "runs/a" / NEWEST), arrays(trained[0] / NEWEST)
    assert all(np.array_equal(ours[name], expected[name]) for name in expected)


def test_a_mean_leaves_out_the_model_as_it_came(place, whole):
    assert run("torch", begun(whole("torch"), "--average", "2")) == 0
    assert metrics(place / "runs/a")[-1]["average_of"] == [2, 4]


def test_a_damaged_first_checkpoint_is_said(trained, place, capsys):
    shutil.copytree(trained[0], "runs/a", symlinks=True)
    halve_a_file(place / "runs/a" / FIRST)
    assert run("torch", ["--resume", "runs/a", "--from-step", "0"]) == 2
    assert f"{FIRST}/" in (said := capsys.readouterr().err) and "--from-step 4" in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--init", "nowhere"], "nowhere"),
        (["--init", "words.tsv"], "words.tsv"),
        (["--languages", "en,de"], "has none to choose"),
    ],
)
def test_what_cannot_be_begun_with_is_one_line(more, words, place, whole, capsys):
    assert run("torch", [*begun(whole("torch")), *more]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert not os.path.exists("runs/a")


def test_a_model_and_data_that_are_not_there_are_said_at_once(place, capsys):
    assert run("torch", ["--init", "runs/none", "--data", "corpus", "--name", "a"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot start: 2 faults\n")
    says(said, "runs/none")
    says(said, "corpus", "--source-lang and --target-lang")


@pytest.mark.parametrize(("sounds", "started"), [("XX", False), ("AA BB", True)])
def test_data_of_which_most_is_unknown_is_refused(sounds, started, place, whole, capsys):
    """Where every second phoneme of a few lines is unknown, that is a note."""
    lines = (place / "words.tsv").read_text().splitlines()
    other = [f"{line.split(chr(9))[0]}\t{sounds} XX" for line in lines[1:]]
    (place / "other.tsv").write_text("\n".join([lines[0], *other]) + "\n")
    status = run("torch", [*begun(whole("torch")), "--data", "other.tsv"])
    out, err = capsys.readouterr()
    assert (status == 0) == started == os.path.exists("runs/a")
    if started:
        says(out, "target:", "33.3%", "unknown", "not learned")
    else:
        says(err, "target:", "100.0%", "unknown")
        says(err, str(whole("torch")), "--init")
        assert "source:" not in err


def test_a_vocabulary_of_the_data_may_leave_most_out(place, capsys):
    """It is as small as was asked for: a note says what is lost."""
    assert run("numpy", [*SMALL, "--target-vocab-size", "5", "--name", "a"]) == 0
    says(capsys.readouterr().out, "target:", "unknown", "not learned")
