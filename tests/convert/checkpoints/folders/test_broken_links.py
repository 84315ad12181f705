"""The cache of the Hub, whose files are links to blobs: blobs that are gone, and its own root."""

from __future__ import annotations

import json

import pytest
from convert_cases import fail
from marian_folders import marian_weights, write_marian
from messages import says

from convert.checkpoints.folders.location import locate
from convert.conversion.opening import open_model
from transformer_spec import UserError


@pytest.fixture
def snapshot(tmp_path):
    """A repository as huggingface_hub keeps it: links of a commit to blobs."""
    repository = tmp_path / "models--x--y"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    (repository / "blobs").mkdir()
    folder = write_marian(repository / "snapshots" / "0123", marian_weights())
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = file.rename(repository / "blobs" / f"b{number}")
        file.symlink_to(f"../../blobs/{blob.name}")
    return folder


def lose(file):
    """Remove what a link leads to."""
    file.resolve().unlink()


def test_a_file_whose_blob_is_gone(snapshot, capsys, tmp_path):
    assert open_model(snapshot).located.kind == "weight folder"
    lose(snapshot / "model.safetensors")
    said = fail(capsys, snapshot, tmp_path / "x", "--to", "torch")
    says(said, snapshot / "model.safetensors", "link", "../../blobs/b1", "cp -L", "again")
    with pytest.raises(UserError) as error:
        locate(snapshot / "model.safetensors")
    says(error.value, snapshot / "model.safetensors", "link", "../../blobs/b1")


def test_settings_whose_blob_is_gone(snapshot, capsys, tmp_path):
    lose(snapshot / "config.json")
    said = fail(capsys, snapshot, tmp_path / "x", "--to", "torch")
    says(said, snapshot / "config.json", "link", "../../blobs/b0", "cp -L")


def test_all_blobs_are_gone(snapshot, capsys, tmp_path):
    """As ``cp -d`` copies a snapshot; the weights are named first."""
    lose(snapshot / "config.json")
    lose(snapshot / "model.safetensors")
    said = fail(capsys, snapshot, tmp_path / "x", "--to", "torch")
    says(said, snapshot / "model.safetensors", "link", "1 more")


def test_a_shard_whose_blob_is_gone(snapshot, capsys, tmp_path):
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model-00001-of-00001.safetensors").symlink_to("../../blobs/b9")
    said = fail(capsys, snapshot, tmp_path / "x", "--to", "torch")
    says(said, snapshot / "model-00001-of-00001.safetensors", "../../blobs/b9", "cp -L")


def test_a_link_that_looks_like_a_name_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").symlink_to("../lost")
    with pytest.raises(UserError) as error:
        open_model("owner/name")
    says(error.value, "owner/name", "link", "../lost")


def test_the_root_of_a_repository_in_the_cache(snapshot, capsys, tmp_path):
    said = fail(capsys, snapshot.parents[1], tmp_path / "x", "--to", "torch")
    says(said, "cache", snapshot)
