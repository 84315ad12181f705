"""What is not there, or is a folder, is said to be that, in the user's words."""

import shutil

import pytest
from convert_cases import convert, fail, write_run
from marian_folders import marian_weights, write_marian
from messages import says

from convert.conversion.request import size_in_bytes
from training_recipe.text.vocabulary import load_vocabulary
from transformer_spec import UserError


@pytest.fixture
def marian(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_marian(tmp_path / "theirs", marian_weights())


def test_a_config_that_is_not_there_or_a_folder(marian, capsys) -> None:
    words = ("--to", "torch", "--config")
    said = fail(capsys, marian, "new", *words, "nothere.json")
    assert said == "error: nothere.json does not exist\n"
    says(fail(capsys, marian, "new", *words, marian), marian, "is a folder", "give the file")
    (marian.parent / "cut.json").write_text('{"a": ')
    says(fail(capsys, marian, "new", *words, "cut.json"), "cut.json", "not JSON", "line 1 column 7")


def test_an_adapter_that_is_not_there(marian, capsys) -> None:
    words = (marian, "new", "--to", "torch", "--merge-adapter")
    says(fail(capsys, *words, "nothere"), "nothere does not exist", "PEFT")
    says(fail(capsys, *words, marian), marian, "has no adapter_config.json")
    (marian / "adapter_config.json").write_text("{")
    says(fail(capsys, *words, marian), marian / "adapter_config.json", "not JSON")


def test_a_vocabulary_that_is_not_there_is_named_once(tmp_path) -> None:
    run = write_run(tmp_path / "run", "torch")
    path = run / "vocabulary/source.json"
    path.unlink()
    with pytest.raises(UserError) as caught:
        load_vocabulary(run / "vocabulary", "source")
    assert (
        str(caught.value) == f"cannot read the source vocabulary {path}: No such file or directory"
    )


def test_a_lone_file_with_a_config(marian, capsys) -> None:
    """Its tokenizer is looked for in the folder of a library alone."""
    shutil.move(marian / "model.safetensors", "lone.safetensors")
    config = shutil.move(marian / "config.json", "c.json")
    convert("lone.safetensors", "new", "--to", "torch", "--config", config)
    said = capsys.readouterr().out
    says(said, "reads ids", "config.json, source.spm", "into one folder", "give that")
    says(said, "the config has no max_length")
    shutil.move("c.json", "config.json")
    convert("lone.safetensors", "other", "--to", "torch")
    says(capsys.readouterr().out, "reads ids", "into the current folder")


def test_a_file_without_tensors_has_no_dict_to_choose(marian, capsys) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": 1}, "dict.pt")
    said = fail(capsys, "dict.pt", "new", "--to", "torch")
    assert "it has no dict of tensors" in said and "--key" not in said


@pytest.mark.parametrize(
    ("text", "size"), [("1kB", 1000), ("1KB", 1000), ("2KiB", 2048), ("1.5MB", 1_500_000)]
)
def test_sizes(text, size) -> None:
    assert size_in_bytes(text) == size
    with pytest.raises(UserError, match="units are kB, MB, GB and TB"):
        size_in_bytes("1XB")
