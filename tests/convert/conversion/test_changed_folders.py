"""A folder that changes while it is converted: one error, and nothing is left half-written."""

import os
import shutil

import pytest
from messages import says

from convert.conversion import ConversionRequest, conversion
from transformer_spec import UserError


def swapped(path):
    """Other bytes of the same number, at the same time."""
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = {
    "bytes": (lambda folder: swapped(folder / "vocab.json"), "vocab.json"),
    "longer": (lambda folder: (folder / "config.json").write_text("{}"), "config.json"),
    "gone": (lambda folder: (folder / "source.spm").unlink(), "source.spm"),
    "weights": (lambda folder: os.utime(folder / "model.safetensors", (1, 1)), "model.safetensors"),
    "folder": (shutil.rmtree, "model.safetensors"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_one_error_and_nothing_is_left(hub_folders, tmp_path, monkeypatch, kind) -> None:
    folder = hub_folders.copy("marian", tmp_path / "opus")
    change, name = CHANGES[kind]
    write = conversion.write_target

    def write_and_change(*arguments):
        write(*arguments)
        change(folder)

    monkeypatch.setattr(conversion, "write_target", write_and_change)
    with pytest.raises(UserError) as caught:
        conversion.convert(ConversionRequest(folder, tmp_path / "ours", to="torch"))
    says(caught.value, name)
    says(caught.value, "convert again")
    assert [path.name for path in tmp_path.iterdir()] == ["opus"] * folder.exists()
    assert not [path for path in tmp_path.iterdir() if path != folder]


def test_a_file_that_comes_meanwhile_is_none_of_it(hub_folders, tmp_path, monkeypatch) -> None:
    folder = hub_folders.copy("marian", tmp_path / "opus")
    write = conversion.write_target

    def write_and_add(*arguments):
        write(*arguments)
        (folder / "notes.txt").write_text("later")

    monkeypatch.setattr(conversion, "write_target", write_and_add)
    conversion.convert(ConversionRequest(folder, tmp_path / "ours", to="torch"))
    assert not (tmp_path / "ours/original/notes.txt").exists()
