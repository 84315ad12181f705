"""Top-level modules of archives, and which of them are called as ours."""

import io
import tarfile
import zipfile

import pytest

from release import names


def wheel(place, *files):
    with zipfile.ZipFile(place, "w") as opened:
        for name in files:
            opened.writestr(name, "")
    return place


def sdist(place, *files):
    with tarfile.open(place, "w:gz") as opened:
        for name in files:
            opened.addfile(tarfile.TarInfo(f"outer-1/{name}"), io.BytesIO())
    return place


def test_names_that_an_index_holds_for_the_same():
    listed = ["Torch.Transformer", "convert", "convert-all", "parity_", "numpy"]
    assert names.of_our_names(listed) == ["Torch.Transformer", "convert"]


def test_modules_of_a_wheel(tmp_path):
    made = wheel(
        tmp_path / "a-1-py3-none-any.whl",
        *("convert/deep/file.py", "parity.py", "_c.so", "a-1.dist-info/METADATA", "tests/a.py"),
        *("a-1.data/purelib/flax_transformer/__init__.py", "a-1.data/scripts/twinformer"),
    )
    assert names.modules(made) == {"convert", "parity", "flax_transformer"}


def test_modules_of_a_source_distribution(tmp_path):
    made = sdist(
        tmp_path / "a-1.tar.gz",
        *("setup.py", "src/convert/__init__.py", "parity/__init__.py", "docs/convert.py"),
        *("tests/__init__.py", "one.py", "a.egg-info/PKG-INFO"),
    )
    assert names.modules(made) == {"convert", "parity", "one"}


def test_the_command(tmp_path, monkeypatch, capsys):
    listed = tmp_path / "most-used.tsv"
    listed.write_text("numpy\t2.4\nparity\t1.0\n")

    def fetched(package, folder):
        if package == "absent":
            raise names.CommandFailed("pip: 1\nno such package")
        return wheel(folder / f"{package}-1-py3-none-any.whl", f"{package}/__init__.py")

    monkeypatch.setattr(names, "fetched", fetched)
    assert names.main(["--list", str(listed), "convert", "numpy", "absent"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 names listed; called as one of ours: parity",
        "convert-1-py3-none-any.whl: convert",
        "numpy-1-py3-none-any.whl: none of our names",
        "absent: not fetched: no such package",
    ]


def test_the_command_needs_something_to_do(capsys):
    with pytest.raises(SystemExit):
        names.main([])
    assert "--list" in capsys.readouterr().err
