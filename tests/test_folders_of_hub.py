"""The folders that tests read are the generator's, the same bytes every time."""

import pytest
from folders_of_hub import FAMILIES, program


def test_all_of_the_program_are_known() -> None:
    assert list(program("make_opus_folder").FAMILIES) == list(FAMILIES)


def test_one_is_made_once(hub_folders) -> None:
    folder = hub_folders("marian")
    first = (folder / "model.safetensors").stat().st_mtime_ns
    assert hub_folders("marian") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == first
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "source.spm", "vocab.json"} <= names


def test_a_copy_may_be_changed(hub_folders, tmp_path) -> None:
    copy = hub_folders.copy("marian", tmp_path / "copy")
    (copy / "vocab.json").unlink()
    assert (hub_folders("marian") / "vocab.json").is_file()


def test_an_unknown_family_is_an_error(hub_folders) -> None:
    with pytest.raises(KeyError):
        hub_folders("no-such-family")
