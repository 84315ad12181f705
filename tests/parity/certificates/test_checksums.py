"""SHA256SUMS as sha256sum reads it, and which files stand for A."""

import hashlib
import os
import shutil
import subprocess

import pytest
from certificate_cases import edit, verify
from messages import says

from parity.certificates.certificate import NOT_COVERED, read_certificate
from parity.certificates.checksums import (
    checksums,
    files_below,
    files_of,
    read_sums,
    sums_text,
)
from transformer_spec import UserError


class TestList:
    NAMES = ("plain", "with space", "back\\slash", "new\nline", "re\rturn", "\udcff")

    def test_any_name_comes_back(self, tmp_path):
        sums = {
            name: hashlib.sha256(name.encode(errors="replace")).hexdigest() for name in self.NAMES
        }
        path = tmp_path / "SHA256SUMS"
        path.write_text(sums_text(sums), encoding="utf-8", errors="surrogateescape")
        assert read_sums(path) == sums

    @pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
    def test_sha256sum_agrees(self, folder):
        (folder / "new\nline").write_text("x")
        done = subprocess.run(
            ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=folder, check=False
        )
        assert done.returncode == 0
        (folder / "config.json").write_text("other")
        done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, check=False)
        assert done.returncode == 1

    def test_lines_of_something_else_are_one_error(self, tmp_path):
        (tmp_path / "SHA256SUMS").write_text(f"{'a' * 64}  name\nnonsense\n{'A' * 64}  upper\n")
        with pytest.raises(UserError, match=r"(?s)2 faults.*line 2 .*line 3 "):
            read_sums(tmp_path / "SHA256SUMS")

    def test_what_is_no_file_is_one_error(self, tmp_path):
        (tmp_path / "gone").symlink_to("nowhere")
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UserError, match=r"(?s)2 faults.*(gone.*pipe|pipe.*gone)"):
            files_below(tmp_path)


class TestFilesOfA:
    def test_as_certified_or_not_there(self, folder, tmp_path, capsys):
        held = read_certificate(folder).a_files
        assert list(held) == ["inside/more", "model.safetensors"]
        assert held["model.safetensors"] == hashlib.sha256(b"numbers").hexdigest()
        assert verify(folder, "--quick") == 0
        says(capsys.readouterr().out, "all 2 files of A", "as certified")
        (tmp_path / "a").rename(tmp_path / "moved")
        assert verify(folder, "--quick") == 0
        assert f"A, {tmp_path / 'a'}, is not there" in capsys.readouterr().out

    def test_differences_fail_before_anything_is_computed(self, folder, tmp_path, capsys):
        (tmp_path / "a" / "model.safetensors").write_text("others")
        (tmp_path / "a" / "inside" / "more").rename(tmp_path / "a" / "new")
        assert verify(folder) == 1
        said = capsys.readouterr().out
        for line in ("missing  inside/more", "extra    new", "changed  model.safetensors"):
            assert line in said

    def test_where_they_could_not_be_told(self, folder, capsys):
        edit(folder, lambda c: c.update(a_files=None), honest=True)
        assert verify(folder, "--quick") == 0
        says(capsys.readouterr().out, "A's files", "not in the certificate")

    def test_what_stands_for_a(self, tmp_path):
        for name in ("net.pt", "config.json", "beside", "make.py", "blob"):
            (tmp_path / name).write_text(name)
        (tmp_path / "hub").mkdir()
        (tmp_path / "hub" / "model.safetensors").symlink_to("../blob")
        (tmp_path / "hub" / "PARITY.md").write_text("of another comparison")
        expected = {
            f"{tmp_path / 'net.pt'} --num-heads 2": {"config.json", "net.pt"},
            f"module:{tmp_path / 'make.py'}:f": {"make.py"},
            f"hf:{tmp_path / 'hub'}": {"model.safetensors"},
        }
        assert {a: set(files_of(a, NOT_COVERED) or ()) for a in expected} == expected
        hub = checksums(files_of(f"hf:{tmp_path / 'hub'}", NOT_COVERED) or {})
        assert hub["model.safetensors"] == hashlib.sha256(b"blob").hexdigest()
        assert files_of(str(tmp_path / "none"), NOT_COVERED) is None

    def test_links_to_folders_are_followed(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "part").write_text("numbers")
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        (tmp_path / "hub" / "weights").symlink_to("../elsewhere")
        (tmp_path / "hub" / "circle").symlink_to(".")
        (tmp_path / "elsewhere" / "back").symlink_to("../hub")
        assert list(files_of(f"hf:{tmp_path / 'hub'}", NOT_COVERED) or ()) == ["weights/part"]

    def test_a_run_is_the_checkpoint_that_it_is_used_by(self, run):
        before = files_of(str(run), NOT_COVERED)
        (run / "parity_train.png").write_text("a picture made later")
        assert before and files_of(str(run), NOT_COVERED) == before
        assert "config.json" in before and "model.safetensors" in before
