"""What is wrong with source, destination and target is told together."""

import pytest
from convert_cases import fail, write_run
from messages import faults_say, says

from convert import ConversionRequest, SourceRequest
from convert import convert as run
from transformer_spec import UserError


@pytest.fixture
def there(tmp_path):
    """A table of pairs and a folder, neither of which is a model."""
    (tmp_path / "pairs.csv").write_text("a,b\n1,2\n")
    (tmp_path / "made").mkdir()
    return tmp_path


def faults_of(source, destination, **options):
    with pytest.raises(UserError) as caught:
        run(ConversionRequest(source, destination, **options))
    return caught.value.faults


def test_all_three(there):
    absent = there / "nothere"
    found = faults_of(absent, there / "made", to="flux")
    faults_say(found, ("flux", "choose one of"), (absent, "does not exist"), ("made", "exists"))
    assert len(faults_of(absent, there / "made", to="flux", dtype="int3")) == 4


@pytest.mark.parametrize("name", ["nothere", "pairs.csv"])
def test_source_and_destination(name, there, capsys):
    expected = ("made", "exists already"), (name, "exist" if name == "nothere" else "weight file")
    faults_say(faults_of(there / name, there / "made", to="flax"), *expected)
    said = fail(capsys, there / name, there / "made", "--to", "flax")
    for parts in expected:
        says(said, *parts)


def test_each_of_them_alone_is_told_without_a_heading(there, capsys):
    run_folder = write_run(there / "run", "torch")
    said = fail(capsys, run_folder, there / "made", "--to", "flax")
    assert said.startswith(f"error: {there / 'made'} exists already")
    said = fail(capsys, there / "nothere", there / "new", "--to", "flax")
    assert said.startswith(f"error: {there / 'nothere'} does not exist")


@pytest.mark.parametrize("source", [3, "", "a\0b", "owner/name"])
def test_what_is_no_path_here_is_not_looked_for(source, there, monkeypatch):
    monkeypatch.chdir(there)
    monkeypatch.setattr(
        "convert.checkpoints.folders.location.get", lambda *_: pytest.fail("asked the Hub")
    )
    found = faults_of(source, there / "made", to="flax", dtype="int3")
    assert len(found) == 2
    assert not any("does not exist" in fault for fault in found)
    with pytest.raises(UserError):
        SourceRequest(source, family="none")


def test_a_destination_that_no_name_can_be(there):
    found = faults_of(there / "pairs.csv", "a\0b", to="flax")
    faults_say(found, ("destination", "NUL"), ("pairs.csv", "weight file"))
