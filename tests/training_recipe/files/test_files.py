"""Files and folders are whole or absent; JSON and fingerprints of them."""

import hashlib
import os

import pytest
from messages import saying, says

from training_recipe.files import fingerprints as fingerprinting
from training_recipe.files.fingerprints import fingerprint, fingerprints
from training_recipe.files.json_files import read_json, write_json
from training_recipe.files.writing import (
    all_or_nothing,
    folder_aside,
    make_parent,
    point_link,
    replace_file,
)
from transformer_spec import UserError


class TestWholeOrAbsent:
    def test_folder(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), folder_aside(tmp_path / "a") as partial:
            (partial / "half").touch()
            assert not (tmp_path / "a").exists()
            raise KeyboardInterrupt
        assert list(tmp_path.iterdir()) == []

    def test_everything_is_on_disk_before_the_name(self, tmp_path, monkeypatch):
        done = []
        fsync, rename = os.fsync, os.replace
        monkeypatch.setattr(
            os, "fsync", lambda d: (done.append(os.readlink(f"/proc/self/fd/{d}")), fsync(d))
        )
        monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), rename(a, b)))
        with folder_aside(tmp_path / "a") as partial:
            (partial / "inner").mkdir()
            (partial / "inner" / "file").write_text("x")
        inner = str(partial / "inner")
        assert done == [f"{inner}/file", inner, str(partial), "rename", str(tmp_path)]

    def test_file(self, tmp_path):
        path = tmp_path / "a.json"
        write_json(path, {"x": 1})

        def failing(partial):
            partial.write_text("half")
            raise OSError("broken")

        with pytest.raises(UserError, match="a.json: broken") as caught:
            replace_file(path, failing)
        assert isinstance(caught.value.__cause__, OSError)
        assert read_json(path) == {"x": 1} and list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
    def test_damaged_json_is_named(self, tmp_path, content):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(UserError, match="a.json is damaged"):
            read_json(tmp_path / "a.json")

    def test_link(self, tmp_path):
        for name in ("one", "two", "two"):
            (tmp_path / name).mkdir(exist_ok=True)
            point_link(tmp_path / "best", tmp_path / name)
            assert os.readlink(tmp_path / "best") == name
        assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "one", "two"]


def test_a_folder_that_another_process_wrote_meanwhile(tmp_path):
    with pytest.raises(UserError) as error:
        with folder_aside(tmp_path / "new") as aside:
            (aside / "mine").write_text("mine")
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "theirs").write_text("theirs")
    says(error.value, tmp_path / "new", "another process", "another place")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "theirs"]


class TestAllOrNothing:
    def test_files_move_together_in_order(self, tmp_path):
        with all_or_nothing(tmp_path / "new", ["one", "two"]) as aside:
            for name in ("two", "one"):
                (aside / name).write_text(name)
            assert [path.name for path in (tmp_path / "new").iterdir()] == [aside.name]
        assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["one", "two"]

    def test_a_missing_one_leaves_none(self, tmp_path):
        (tmp_path / "mine").write_text("stays")
        with pytest.raises(UserError, match="nothing was left"):
            with all_or_nothing(tmp_path, ["one", "two"]) as aside:
                (aside / "one").write_text("one")
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_one_that_is_there_is_named(self, tmp_path):
        (tmp_path / "one").write_text("mine")
        with pytest.raises(UserError, match="one already"):
            with all_or_nothing(tmp_path, ["one"]):
                pass
        assert (tmp_path / "one").read_text() == "mine"


def test_fingerprints(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprinting, "BLOCK_BYTES", 3)
    (tmp_path / "in").mkdir()
    for name in ("a", "in/b", "in/c"):
        (tmp_path / name).write_bytes(b"12345678")
    digest, seen = hashlib.sha256(b"12345678").hexdigest(), []
    assert fingerprint(tmp_path / "a", seen.append) == {"bytes": 8, "sha256": digest}
    assert seen == [3, 3, 2]
    assert list(fingerprints(tmp_path, besides="c")) == ["a", "in/b"]


def test_nothing_can_lie_in_a_file(tmp_path):
    (tmp_path / "words.txt").write_text("words")
    with pytest.raises(UserError, check=saying(tmp_path / "words.txt/x/y", "is a file")):
        make_parent(tmp_path / "words.txt/x/y")
    make_parent(tmp_path / "new/folder/run")
    assert [place.name for place in (tmp_path / "new").iterdir()] == ["folder"]
