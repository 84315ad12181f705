"""The search of a model crosses with it: read once, kept in search.json, written where changed."""

import dataclasses
import json

import pytest
from messages import says

from convert.conversion import ConversionRequest, convert
from convert.conversion.opening import open_model
from training_recipe.searching.published import load_search, save_search


@pytest.fixture
def folder(hub_folders, tmp_path):
    return hub_folders.copy("marian", tmp_path / "opus")


def ours(folder, place):
    done = convert(ConversionRequest(folder, place, to="torch"))
    return done, load_search(place / "search.json")


def change(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (content | changes).items() if v is not None}))


def test_it_is_what_generation_config_says(folder, tmp_path) -> None:
    _, search = ours(folder, tmp_path / "ours")
    pad = json.loads((folder / "config.json").read_text())["pad_token_id"]
    assert (search.rule, search.beam, search.max_length) == ("generate", 4, 511)
    assert (search.banned, search.renormalize, search.forced_last_id) == (((pad,),), True, 0)


def test_config_json_counts_where_there_is_no_other_alone(folder, tmp_path) -> None:
    """As transformers 5 reads them: of the two files one, and never parts of both."""
    change(folder / "config.json", num_beams=7)
    change(folder / "generation_config.json", num_beams=None)
    assert ours(folder, tmp_path / "both")[1].beam == 1
    (folder / "generation_config.json").unlink()
    done, search = ours(folder, tmp_path / "old")
    assert (search.beam, search.max_length) == (7, 511)
    assert not any("not honoured" in note for note in done.notes)


def test_the_library_reads_both_files_so(folder) -> None:
    """What the test before says of transformers."""
    from transformers import AutoModelForSeq2SeqLM

    change(folder / "config.json", num_beams=7)
    change(folder / "generation_config.json", num_beams=None)
    found = []
    for _ in range(2):
        model = AutoModelForSeq2SeqLM.from_pretrained(folder)
        found.append(model.generation_config.num_beams)
        (folder / "generation_config.json").unlink(missing_ok=True)
    assert found == [None, 7] or found == [1, 7]


def test_what_was_changed_is_written(folder, tmp_path) -> None:
    _, search = ours(folder, tmp_path / "ours")
    changed = dataclasses.replace(search, beam=6, no_repeat_ngram_size=3)
    save_search(changed, tmp_path / "ours/search.json")
    done = convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="marian"))
    written = json.loads((tmp_path / "back/generation_config.json").read_text())
    before = json.loads((folder / "generation_config.json").read_text())
    assert written == before | {"num_beams": 6, "no_repeat_ngram_size": 3}
    assert done.files["rewritten"] == 2  # and the weights
    assert (tmp_path / "back/config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert open_model(tmp_path / "back").search == changed
    save_search(search, tmp_path / "ours/search.json")
    convert(ConversionRequest(tmp_path / "ours", tmp_path / "same", to="marian"))
    same = (tmp_path / "same/generation_config.json").read_bytes()
    assert same == (folder / "generation_config.json").read_bytes()


def test_what_was_taken_back_is_not_written(folder, tmp_path) -> None:
    """A key of the original that would mean another search does not stay."""
    change(folder / "generation_config.json", no_repeat_ngram_size=2, transformers_version="4.30.0")
    _, search = ours(folder, tmp_path / "ours")
    changed = dataclasses.replace(search, no_repeat_ngram_size=0)
    save_search(changed, tmp_path / "ours/search.json")
    convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="marian"))
    written = json.loads((tmp_path / "back/generation_config.json").read_text())
    assert "no_repeat_ngram_size" not in written
    assert open_model(tmp_path / "back").search == changed


@pytest.mark.parametrize("text", ['{"num_beams": "four"}', "[1]", '{"num_beams": 4'])
def test_a_damaged_one_stops_no_weights(folder, tmp_path, text) -> None:
    (folder / "generation_config.json").write_text(text)
    done = convert(ConversionRequest(folder, tmp_path / "ours", to="torch"))
    says(done.notes, "warning", "generation_config.json")
    convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="marian"))
    assert (tmp_path / "back/generation_config.json").read_text() == text


def test_all_faults_of_the_file_that_has_them(folder) -> None:
    change(folder / "generation_config.json", num_beams=-1, length_penalty="x", max_length=0)
    (note,) = [note for note in open_model(folder).notes if "search" in note]
    for fault in ("num_beams is -1", 'length_penalty is "x"', "max_length is 0"):
        assert fault in note
    assert f"{folder / 'generation_config.json'} describes no search: 3 faults" in note
    assert str(folder / "config.json") not in note


def test_a_damaged_search_of_ours(folder, tmp_path) -> None:
    ours(folder, tmp_path / "ours")
    (tmp_path / "ours/search.json").write_text("[")
    done = convert(ConversionRequest(tmp_path / "ours", tmp_path / "again", to="torch"))
    says(done.notes, "search.json is left out", "damaged")
    assert not (tmp_path / "again/search.json").exists()
    done = convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="marian"))
    says(done.notes, "warning", "generation_config.json is written as it was")


def test_a_search_of_ours_with_ids_that_the_model_has_not(folder, tmp_path) -> None:
    ours(folder, tmp_path / "ours")
    change(tmp_path / "ours/search.json", forced_first_id=99_999)
    done = convert(ConversionRequest(tmp_path / "ours", tmp_path / "again", to="torch"))
    says(done.notes, "search.json is left out", "forced_first_id is 99999; the model has 711")
    done = convert(ConversionRequest(tmp_path / "ours", tmp_path / "back", to="marian"))
    says(done.notes, "generation_config.json is written as it was", "search.json", "99999")
    before = (folder / "generation_config.json").read_bytes()
    assert (tmp_path / "back/generation_config.json").read_bytes() == before
