"""What is said of weights whose family is not known: what is wrong, what fits, what to do."""

import numpy as np
import pytest
from convert_cases import CONFIG, convert, fail
from marian_folders import marian_weights, write_marian
from messages import says

from convert.__main__ import main
from convert.core.tensors import Held
from convert.families.base import Source
from convert.families.registry import HUGGING_FACE
from convert.formats.safetensors import write_safetensors

BROKEN = '{"model_type": "marian",\n "d_model": 6\n "vocab_size": 11}'


@pytest.fixture
def folder(tmp_path):
    """Marian's weights and config.json, as its library writes them."""
    return write_marian(tmp_path / "theirs", marian_weights())


@pytest.fixture
def refused(capsys, tmp_path):
    """A function: the one line about a conversion that is refused."""
    return lambda source, *words: fail(capsys, source, tmp_path / "new", "--to", "torch", *words)


def test_a_broken_config_is_what_is_told(folder, refused, capsys) -> None:
    whole = (folder / "config.json").rename(folder.parent / "whole.json")
    (folder / "config.json").write_text(BROKEN)
    parts = (folder / "config.json", "is not JSON", "line 3 column 2", "--config FILE")
    error = refused(folder)
    says(error, *parts)
    assert "nearest" not in error and "no config.json" not in error
    says(refused(folder, "--from", "marian"), "marian", *parts)
    assert main(["inspect", str(folder)]) == 0
    says(capsys.readouterr().out, *parts)
    convert(folder, folder.parent / "ours", "--to", "torch", "--config", whole)


@pytest.mark.parametrize("words", [(), ("--from", "marian")])
def test_a_config_that_is_not_the_librarys(words, folder, refused) -> None:
    (folder / "config.json").write_text('{"hidden": 6}')
    says(refused(folder, *words), folder / "config.json", "none of the keys", "--config FILE")
    ours = folder.parent / "ours.json"
    CONFIG.save(ours)
    says(refused(folder, "--config", ours, *words), ours, "twinformer's own", "--config FILE")
    (folder / "config.json").unlink()
    says(refused(folder, *words), "lies beside it", "--config FILE")
    says(refused(folder, "--config", ours, *words), ours, "twinformer's own", "library")


@pytest.mark.parametrize("around", ["", "module.", "model.", "module._orig_mod."])
def test_the_state_of_a_module_is_nearest_to_its_class(around, folder, refused) -> None:
    """A state_dict() has tied tables under all their names, and the tables of sinusoids."""
    arrays = marian_weights()
    table, positions = arrays["model.shared.weight"], np.zeros((9, 6), np.float32)
    for half in ("encoder", "decoder"):
        arrays[f"model.{half}.embed_tokens.weight"] = table
        arrays[f"model.{half}.embed_positions.weight"] = positions
    arrays["lm_head.weight"] = table
    named = {around + name: array for name, array in arrays.items()}
    write_safetensors(folder / "model.safetensors", Held(named))
    (folder / "config.json").unlink()
    error = refused(folder)
    says(error, "nearest is marian", "100%")
    assert not any(other in error.partition("nearest is")[2] for other in ("fsmt", "bart"))


@pytest.mark.parametrize(
    ("name", "others"),
    [("bart", ["plbart", "blenderbot-small"]), ("pegasus", ["blenderbot", "m2m100"])],
)
def test_all_classes_are_named_that_are_as_near(name, others, tmp_path, refused) -> None:
    family = next(family for family in HUGGING_FACE if family.name == name)
    headers = family.written(family.like()).tensors
    arrays = {name: np.zeros(header.shape, np.float32) for name, header in headers.items()}
    write_safetensors(tmp_path / "m.safetensors", Held(arrays))
    says(refused(tmp_path / "m.safetensors"), "nearest are", name, *others)


def test_every_class_has_all_of_its_own_names() -> None:
    for family in HUGGING_FACE:
        assert family.likeness(Source(family.written(family.like()).tensors)) == 1


@pytest.mark.parametrize("words", [(), ("--from", "marian"), ("--names", "d2l")])
def test_a_file_without_a_tensor(words, tmp_path, refused, capsys) -> None:
    torch = pytest.importorskip("torch")
    torch.save({}, tmp_path / "empty.pt")
    says(refused(tmp_path / "empty.pt", *words), tmp_path / "empty.pt", "holds no tensor")
    assert main(["names", str(tmp_path / "empty.pt")]) == 2
    says(capsys.readouterr().err, "holds no tensor")
