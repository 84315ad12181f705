"""The page about a model of one's own stays true: what it says is run, in its order."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from convert.__main__ import main as convert  # noqa: E402
from convert.naming.layouts import parse_layout  # noqa: E402
from convert.naming.parsing import SECTIONS  # noqa: E402
from parity.__main__ import main as prove  # noqa: E402

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/your-own-model.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples/your_own_model.py"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = {"convert": convert, "parity": prove}
# Logits in float64 are the proof; the rest takes longer.
QUICK = ["--b-framework", "torch", "--precision", "--no-gradients", "--no-explain"]


def run(line: str, folder: Path) -> int:
    """A command of the page, in this process."""
    program, *words = shlex.split(line, comments=True)
    if program == "cp":
        shutil.copy(ROOT / words[0], folder)
        return 0
    assert program == "python"
    if words[0] == "-m":
        more = QUICK if words[1] == "parity" else []
        return COMMANDS[words[1]]([*words[2:], *more])
    exec(compile(Path(words[0]).read_text("utf-8"), words[0], "exec"), {"__name__": "__main__"})
    return 0


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, where modules beside can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_whole_way(place, capsys) -> None:
    told, shown = "", ""
    for kind, text in BLOCKS:
        if kind == "toml":
            shown = text
        elif kind == "python":
            exec(compile(text, "the page", "exec"), {})
            told += capsys.readouterr().out
        for line in text.splitlines() if kind == "sh" else ():
            if "--module" not in line:
                assert run(line, place) == 0, line
            told += capsys.readouterr().out
    assert "has names of no known family" in told and "PASS: same function" in told
    written = (place / "mine.toml").read_text("utf-8")
    assert all(line in written.splitlines() for line in shown.splitlines())
    ((first, last),) = re.findall(r"loss (\S+) -> (\S+)$", told, re.MULTILINE)
    assert float(last) < 0.5 * float(first)
    assert int(re.findall(r"(\d+)% of the words copied", told)[0]) > 80
    before, after = (torch.load(place / name) for name in ("my_model.pt", "back/model.pt"))
    assert before.keys() == after.keys()


def test_a_wrong_table_fails(place, capsys) -> None:
    for line in BLOCKS[0][1].splitlines()[:2]:
        run(line, place)
    convert(["names", "my_model.pt", "--num-heads", "4", "--output", "wrong.toml"])
    assert tomllib.loads(Path("wrong.toml").read_text("utf-8"))["config"]["activation"] == "relu"
    assert convert(["my_model.pt", "mine", "--to", "torch", "--names", "wrong.toml"]) == 0
    capsys.readouterr()
    assert prove(["module:your_own_model.py:make", "mine", *QUICK]) != 0
    assert "FAIL" in capsys.readouterr().out


def test_its_reference_names_what_there_is(tmp_path) -> None:
    reference = PAGE.split("## What a table says")[1]
    sections = re.findall(r"`\[*(\w+)\]*`", "\n".join(re.findall(r"^\| (.*?) \|", reference, re.M)))
    assert set(SECTIONS) <= set(sections)
    for row in re.findall(r"^\| (`\(.*?) \|", reference, re.MULTILINE):
        for layout in re.findall(r"`(.*?)`", row):
            parse_layout(layout)


def test_the_module_is_some_hundred_lines_of_its_own() -> None:
    text = EXAMPLE.read_text("utf-8")
    assert len(text.splitlines()) < 110
    assert not any(name in text for name in ("twinformer", "transformer_spec", "torch_transformer"))
