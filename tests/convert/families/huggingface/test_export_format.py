"""Exports say in config.json which number format they hold, and transformers loads their files."""

import json

import pytest
import torch
from convert_cases import convert
from huggingface_cases import TINY, random_model
from transformers import MarianConfig, MarianMTModel

from convert.families.huggingface.flax import MarianFlax
from convert.families.huggingface.marian import Marian


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A float32 Marian model as the library saves it."""
    folder = tmp_path_factory.mktemp("marian")
    settings = TINY | {"pad_token_id": 28, "decoder_start_token_id": 28}
    random_model(MarianMTModel, MarianConfig(**settings)).float().save_pretrained(folder)
    return folder


def settings_in(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_format_that_is_asked_for_stands_in_the_settings(folder, tmp_path):
    assert settings_in(folder)["dtype"] == "float32"
    convert(folder, tmp_path / "half", "--to", "marian", "--dtype", "float16")
    assert settings_in(tmp_path / "half") == settings_in(folder) | {"dtype": "float16"}
    model = MarianMTModel.from_pretrained(tmp_path / "half", dtype="auto")
    assert model.dtype == torch.float16
    convert(folder, tmp_path / "flax", "--to", "marian-flax", "--dtype", "bfloat16")
    assert settings_in(tmp_path / "flax")["dtype"] == "bfloat16"


def test_what_came_in_another_format_says_so_on_the_way_back(folder, tmp_path):
    convert(folder, tmp_path / "ours", "--to", "torch", "--dtype", "bfloat16")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "marian")
    assert settings_in(tmp_path / "back")["dtype"] == "bfloat16"
    convert(folder, tmp_path / "same", "--to", "torch")
    convert(tmp_path / "same", tmp_path / "whole", "--to", "marian")
    assert settings_in(tmp_path / "whole") == settings_in(folder)


@pytest.mark.parametrize("family", [Marian(), MarianFlax()], ids=["pytorch", "flax"])
def test_the_key_is_the_one_that_the_settings_have(family):
    assert family.number_format({}, "float16") == {"dtype": "float16"}
    older = {"torch_dtype": "float32"}
    assert family.number_format(older, "float16") == {"torch_dtype": "float16"}
    both = older | {"dtype": "float32"}
    assert family.number_format(both, "float16") == dict.fromkeys(both, "float16")


def test_a_pickle_has_the_name_that_the_library_looks_for(folder, tmp_path):
    convert(folder, tmp_path / "pt", "--to", "marian", "--container", "pt")
    assert (tmp_path / "pt" / "pytorch_model.bin").exists()
    given, loaded = (MarianMTModel.from_pretrained(x) for x in (folder, tmp_path / "pt"))
    for (name, one), (other_name, other) in zip(
        given.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert name == other_name and torch.equal(one, other)
    convert(tmp_path / "pt", tmp_path / "again", "--to", "marian")
    content = (tmp_path / "again" / "model.safetensors").read_bytes()
    assert content == (folder / "model.safetensors").read_bytes()
