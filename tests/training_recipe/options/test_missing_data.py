"""Data that is not there is told beside wrong settings, and by its reader where nothing else is."""

import pytest
from messages import faults_say, says

from training_recipe.options.flags import parse
from training_recipe.options.request import request_of
from transformer_spec import UserError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("X,Y\na,b\n")


def faults_of(**settings):
    with pytest.raises(UserError) as caught:
        request_of({"columns": ("X", "Y"), "steps": -1, **settings})
    return caught.value.faults


def test_tables_and_parallel_files():
    faults_say(faults_of(data="no.csv", backend="tf"), ("steps",), ("tf",), ("no.csv", "no file"))
    found = faults_of(data="no", valid="v.tsv", extra_data=("x.csv",), source_lang="en",
                      target_lang="de")  # fmt: skip
    faults_say(found, ("steps",), ("no.en",), ("no.de",), ("v.tsv",), ("x.csv",))


@pytest.mark.parametrize("settings", [{"data": "there.csv"}, {"data": "cmudict"}, {}])
def test_what_is_there_is_no_fault(settings):
    faults_say(faults_of(**settings), ("steps",))


def test_a_resumed_run_has_data_of_its_own():
    assert not any("no file" in fault for fault in faults_of(data="no.csv", resume="runs/x"))


def test_flags():
    with pytest.raises(UserError) as caught:
        parse(["--data", "no.csv", "--columns", "X,Y", "--steps", "0"])
    says(caught.value, "--steps", "too small")
    says(caught.value, "no.csv", "there is no file")
    assert request_of({"data": "no.csv", "columns": ("X", "Y")}).settings.data == "no.csv"
