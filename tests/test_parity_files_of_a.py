"""The files of A in a certificate: which they are, and what is said where they differ."""

import hashlib

import pytest
import translate_cases
from certificate_cases import certified, edit, verify

from parity.certificate import NOT_COVERED, read_certificate
from parity.files_of_a import files_of_a


@pytest.fixture
def folder(tmp_path):
    return certified(tmp_path)


def test_as_certified_or_not_there(folder, tmp_path, capsys):
    held = read_certificate(folder)["a_files"]
    assert list(held) == ["inside/more", "model.safetensors"]
    assert held["model.safetensors"]["sha256"] == hashlib.sha256(b"numbers").hexdigest()
    assert verify(folder, "--quick") == 0
    assert "all 2 files of A are as certified" in capsys.readouterr().out
    (tmp_path / "a").rename(tmp_path / "moved")
    assert verify(folder, "--quick") == 0
    assert f"A, {tmp_path / 'a'}, is not there: its files were" in capsys.readouterr().out


def test_differences_fail_before_anything_is_computed(folder, tmp_path, capsys):
    (tmp_path / "a" / "model.safetensors").write_text("others")
    (tmp_path / "a" / "inside" / "more").rename(tmp_path / "a" / "new")
    assert verify(folder) == 1
    said = capsys.readouterr().out
    assert "FAIL: 3 files of A are not as certified" in said
    for line in ("missing     inside/more", "extra       new", "changed     model.safetensors"):
        assert line in said


def test_an_older_certificate_says_nothing_of_them(folder, capsys):
    edit(folder, lambda c: c.pop("a_files"), honest=True)
    assert verify(folder, "--quick") == 0
    assert "A's files are not in the certificate" in capsys.readouterr().out


def test_what_stands_for_a(tmp_path):
    for name in ("net.pt", "config.json", "beside", "make.py", "blob"):
        (tmp_path / name).write_text(name)
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "model.safetensors").symlink_to("../blob")
    (tmp_path / "hub" / "PARITY.md").write_text("of another comparison")
    (tmp_path / "hub" / "gone").symlink_to("nowhere")
    expected = {
        f"{tmp_path / 'net.pt'} --num-heads 2": ["config.json", "net.pt"],
        f"module:{tmp_path / 'make.py'}:f": ["make.py"],
        f"hf:{tmp_path / 'hub'}": ["gone", "model.safetensors"],
    }
    assert {a: list(files_of_a(a, NOT_COVERED) or ()) for a in expected} == expected
    hub = files_of_a(f"hf:{tmp_path / 'hub'}", NOT_COVERED) or {}
    assert hub["model.safetensors"]["sha256"] == hashlib.sha256(b"blob").hexdigest()
    assert files_of_a(str(tmp_path / "none"), NOT_COVERED) is None


def test_links_to_folders_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "part").write_text("numbers")
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "weights").symlink_to("../elsewhere")
    (tmp_path / "hub" / "circle").symlink_to(".")
    (tmp_path / "elsewhere" / "back").symlink_to("../hub")
    held = files_of_a(f"hf:{tmp_path / 'hub'}", NOT_COVERED) or {}
    assert held["weights/part"]["sha256"] == hashlib.sha256(b"numbers").hexdigest()
    assert sorted(held) == ["circle", "weights/back", "weights/part"]


def test_what_cannot_be_read_is_not_counted_as_certified(folder, tmp_path, capsys):
    (tmp_path / "a" / "gone").symlink_to("/nowhere/at/all")
    fault = files_of_a(str(tmp_path / "a"), NOT_COVERED)["gone"]
    assert "fault" in fault
    edit(folder, lambda c: c["a_files"].update(gone=fault), honest=True)
    assert verify(folder, "--quick", "--card") == 0
    said = "all 2 files of A are as certified; could not be read, then and now: gone"
    assert said in capsys.readouterr().out
    assert "and of 2 files of A" in (folder / "PARITY.md").read_text()


def test_a_run_is_the_checkpoint_that_it_is_used_by(tmp_path):
    run = translate_cases.make_run(tmp_path / "run", "torch")
    before = files_of_a(str(run), NOT_COVERED)
    (run / "parity_train.png").write_text("a picture made later")
    assert before and files_of_a(str(run), NOT_COVERED) == before
    assert "config.json" in before and "model.safetensors" in before
