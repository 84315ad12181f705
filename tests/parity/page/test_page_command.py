"""``python -m parity A B --html FILE``, and the command that a page shows."""

import json
import shlex
from dataclasses import replace

import pytest
from messages import says

pytest.importorskip("torch")
pytest.importorskip("jax")

from pages_read import made_up, read, rows_of  # noqa: E402
from parity_cases import TINY, failed, random_weights, write  # noqa: E402

from parity.__main__ import main  # noqa: E402
from parity.commands.compare import parser, settings_of  # noqa: E402
from parity.comparison.settings import Settings  # noqa: E402
from parity.page.command import command_of  # noqa: E402
from training_recipe.files import writing  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64")
FEW = "--precision", "--no-gradients", "--length", "5"


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "a", TINY, random_weights(TINY))


def test_writes_the_page_of_the_report(tmp_path, folder, capsys):
    path = tmp_path / "report.html"
    assert main([str(folder), str(folder), *FEW, "--html", str(path), "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(rows_of(read(path.read_text(encoding="utf-8")))) == len(json.loads(out)["rows"])
    assert err.endswith(f"page: {path}\n")


def test_a_model_that_differs_has_a_page_too(tmp_path, folder, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = write(tmp_path / "b", replace(TINY, activation="gelu"), random_weights(TINY))
    assert main([str(folder), str(other), *FEW, "--html"]) == 1
    assert "page: parity.html\nFAIL" in capsys.readouterr().out
    found = read((tmp_path / "parity.html").read_text(encoding="utf-8"))
    assert "activation: A 'relu', B 'gelu'" in found.all("section", id="difference")[0].text


class TestPlaces:
    """Faults of a place are told before anything is read: neither A nor B is there."""

    @pytest.mark.parametrize("flag, ending", [("--html", ".html"), ("--plot", ".png")])
    def test_that_are_none(self, tmp_path, capsys, flag, ending):
        (tmp_path / f"folder{ending}").mkdir()
        (tmp_path / "file").write_text("")
        for place, *said in (
            (f"none/it{ending}", "no folder", tmp_path / "none"),
            (f"file/it{ending}", "no folder", tmp_path / "file"),
            (f"folder{ending}", "is a folder"),
            ("it.txt", f"must end in {ending}"),
            (f"{'long' * 99}{ending}", "File name too long"),
        ):
            error = failed(capsys, "none", "none", flag, tmp_path / place)
            says(error, flag, *said)
            assert "A:" not in error

    def test_that_cannot_be_written(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(writing.os, "access", lambda path, mode: False)
        error = failed(capsys, "none", "none", "--html", tmp_path / "it.html")
        says(error, "--html", "cannot write", tmp_path / "it.html", "Permission denied")

    def test_of_both_files_at_once(self, tmp_path, capsys):
        given = "--html", tmp_path / "none/it.html", "--plot", tmp_path / "it.svg"
        error = failed(capsys, "none", "none", *given)
        says(error, "2 faults")
        assert "--html" in error and "--plot" in error


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings((), gradients=False, explain=False, verify=False, seed=3, longest=5),
        Settings(("float16",), text="a file's.tsv", max_ram=3 * 2**30, padding="behind"),
        Settings(frameworks=("torch", None), devices=("cpu", "gpu"), ids="$HOME/ids.jsonl"),
        Settings(frameworks=(None, "jax"), audio="two.wav", features="x.npy", seed=0),
    ],
    ids=range(5),
)
def test_the_command_of_a_page_asks_for_the_same(settings):
    report = made_up(settings=settings)
    report = replace(report, a=replace(report.a, given="net.pt --num-heads 8 --map a=b"))
    python, m, name, *words = shlex.split(command_of(report))
    assert (python, m, name) == ("python", "-m", "parity")
    options = parser().parse_args(words)
    assert settings_of(options) == settings
    assert (options.a, options.b) == (report.a.given, report.b.given)
