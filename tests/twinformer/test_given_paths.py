"""Paths as calls and commands take them: what is none is one error, and ~/ is the user's home."""

import pytest
from convert_cases import write_run
from messages import saying, says

import twinformer
from convert.__main__ import main
from convert.conversion.saving import save_model
from training_recipe.options.request import request_of
from transformer_spec import UserError
from transformer_spec.paths import as_path, at_home
from twinformer.translating.translator import languages_of

NUL, HALF = "in/mar\0ian", "in/mar\ud800ian"
CALLS = {
    "load": twinformer.load,
    "Translator": twinformer.Translator,
    "Transcriber": twinformer.Transcriber,
    "convert": lambda path: twinformer.convert(path, "new", to="flax"),
    "convert to": lambda path: twinformer.convert("in", path, to="flax"),
    "names": lambda path: twinformer.convert("in", "new", to="flax", names=path),
    "compare": lambda path: twinformer.compare(path, "b"),
    "save": lambda path: save_model(path, None, None, "torch"),  # type: ignore[arg-type]
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("path", "said"), [(NUL, "NUL"), (HALF, "half of a character"), (5, "int"), ("", "is ''")]
)
def test_what_is_no_path_is_one_error(call, path, said):
    with pytest.raises(UserError, check=saying(said)):
        CALLS[call](path)


@pytest.mark.parametrize("given", [5, [], ["de", 3], {"de"}])
def test_what_names_no_languages(given):
    with pytest.raises(UserError, check=saying("languages", "eng_Latn,deu_Latn")):
        languages_of(given)
    assert languages_of(["de", "fr"]) == "de,fr" and languages_of(None) is None


def test_what_a_shell_leaves_is_the_home(home):
    assert as_path("~/x", "it") == home / "x" and at_home("~") == str(home)
    assert at_home("~x/y") == "~x/y" and at_home("a/~/b") == "a/~/b"


def test_a_command_and_a_call_write_into_it(home, capsys):
    write_run(home / "run", "torch")
    assert main(["~/run", "~/mine", "--to", "torch"]) == 0, capsys.readouterr().err
    twinformer.convert("~/mine", "~/again", to="torch")
    assert (home / "mine").is_dir() and (home / "again").is_dir()
    assert list((home / "elsewhere").iterdir()) == []


def test_settings_of_training(home):
    (home / "x.csv").write_text("a,b\n")
    asked = {"data": "~/x.csv", "columns": ("a", "b"), "out": "~/run", "extra_data": ("~/x.csv",)}
    request = request_of(asked)
    assert request.settings.data == str(home / "x.csv") == request.settings.extra_data[0]
    assert request.invocation.out == str(home / "run")


def test_sides_of_a_comparison(home):
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    from parity.sides.given import local_path, side_at_home

    assert local_path(side_at_home("hf:~/a")) == home / "a" == local_path(side_at_home("~/a"))
    assert local_path(side_at_home("module:~/m.py:make")) == home / "m.py"
    with pytest.raises(UserError) as error:
        twinformer.compare("~/a", "hf:~/b")
    says(error.value, home / "a")
