"""A model opened to be used, from folders of ours, of other libraries, and from files."""

import json

import numpy as np
import pytest
from convert_cases import CONFIG, write_run
from messages import saying, says

from convert.checkpoints import load_weights_of
from convert.conversion import ConversionRequest, convert
from convert.conversion.opening import open_model
from transformer_spec import UserError


def same_weights(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


def test_a_run_and_its_checkpoints(tmp_path) -> None:
    run = write_run(tmp_path / "run", "torch", best=10)
    for checkpoint, step in ((None, 10), ("best", 10), (20, 20), ("20", 20)):
        opened = open_model(run, checkpoint=checkpoint)
        wanted = load_weights_of(run / f"checkpoints/step_{step:08d}")[1]
        assert same_weights(opened.weights(), wanted)
    assert (opened.config, opened.home, opened.is_foreign) == (CONFIG, run, False)
    assert (opened.search, opened.origin) == (None, None)
    assert opened.text()[0].encode("ab")
    with pytest.raises(UserError, check=saying("no checkpoint of step 7", "10, 20")):
        open_model(run, checkpoint=7)


def test_another_library_s_folder_is_as_its_conversion(hub_folders, tmp_path) -> None:
    folder = hub_folders("mbart50")
    convert(ConversionRequest(folder, tmp_path / "ours", to="torch"))
    straight, ours = open_model(folder), open_model(tmp_path / "ours")
    assert straight.is_foreign and not ours.is_foreign
    assert straight.home is None and ours.home == tmp_path / "ours"
    assert (straight.config, straight.search) == (ours.config, ours.search)
    assert straight.search is not None and straight.search.beam == 5
    assert straight.origin is not None and ours.origin is not None
    assert straight.origin.family == ours.origin.family == "mbart"
    assert same_weights(straight.weights(), ours.weights())
    text = "A man with a hat."
    for one, other in zip(straight.text(), ours.text(), strict=True):
        assert one.encode(text) == other.encode(text)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_one_file_of_such_a_folder(hub_folders) -> None:
    folder = hub_folders("marian")
    opened = open_model(folder / "model.safetensors")
    assert opened.search == open_model(folder).search
    assert opened.text()[0].encode("A man") == open_model(folder).text()[0].encode("A man")


def test_why_there_is_no_text(hub_folders, tmp_path) -> None:
    folder = hub_folders.copy("marian", tmp_path / "opus")
    (folder / "vocab.json").unlink()
    opened = open_model(folder)
    assert opened.vocabularies is None and len(opened.weights()) > 50
    with pytest.raises(UserError, check=saying("vocab.json is missing")):
        opened.text()
    for name in ("source.spm", "target.spm", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    says(open_model(folder).no_text, "no tokenizer")
    run = write_run(tmp_path / "run", "torch")
    (run / "vocabulary/source.json").write_text("[")
    says(open_model(run).no_text, "cannot read the source vocabulary", run)


def test_what_is_no_model(tmp_path) -> None:
    run = write_run(tmp_path / "run", "torch")
    place = run / "checkpoints/step_00000020"
    (tmp_path / "alone").mkdir()
    (place / "model.safetensors").rename(tmp_path / "alone/model.safetensors")
    with pytest.raises(UserError, check=saying("alone", "no config.json", "give a run")):
        open_model(tmp_path / "alone")
    with pytest.raises(UserError, check=saying("missing", "does not exist")):
        open_model(tmp_path / "missing")
    (run / "search.json").write_text(json.dumps({"format_version": 1, "beem": 3}))
    with pytest.raises(UserError, check=saying("search.json", "beem", "beam")):
        open_model(run, checkpoint=10)


def test_weights_are_verified(hub_folders, tmp_path) -> None:
    convert(ConversionRequest(hub_folders("marian"), tmp_path / "ours", to="torch"))
    path = tmp_path / "ours/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, check=saying("conversion.json")):
        open_model(tmp_path / "ours").weights()
    assert open_model(tmp_path / "ours", verify=False).weights()
