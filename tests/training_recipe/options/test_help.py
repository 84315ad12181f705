"""``train.py --help`` shows what will happen: the values of presets, recipes and flags."""

import re

import pytest

from training_recipe.options.flags import GROUPS, parse, parser
from training_recipe.options.presets import PRESETS
from training_recipe.options.request import ALL, INVOCATION
from training_recipe.options.settings import SETTINGS
from transformer_spec.declarations import as_text


def help_of(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        parse([*arguments, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def shown(text: str) -> dict[str, str]:
    """What stands in brackets behind each setting."""
    settings = text[text.index("\ndata:") : text.index("\npresets:")]
    found = {}
    for part in re.split(r"\n  --(?=[a-z])", settings)[1:]:
        value = re.search(r"\[([^][]*)\]\s*$", part.split("\n\n")[0])
        name = re.match(r"[a-z0-9-]+", part)
        if value and name:
            found[name[0].replace("-", "_")] = " ".join(value[1].split())
    return found


def test_every_flag_once_in_its_group(capsys):
    text = help_of(capsys)
    for declaration in ALL.values():
        flag = f"  {declaration.flag}"
        assert sum(line.startswith((flag + " ", flag + ",")) for line in text.splitlines()) == 1
    lines = text.splitlines()
    positions = [lines.index(f"{group}:") for group in GROUPS]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("arguments", "preset"),
    [
        ([], "tiny"),
        (["--data", "pairs.tsv"], "small"),
        (["--data", "multi30k-en-de"], "small"),
        (["--preset", "base"], "base"),
        (["--preset", "tiny-t5"], "tiny-t5"),
        (["--data", "pairs.tsv", "--preset", "tiny"], "tiny"),
    ],
)
def test_what_it_shows_is_what_is_trained_with(capsys, arguments, preset):
    request, found = parse(arguments), shown(help_of(capsys, *arguments))
    assert request.invocation.preset == found["preset"].partition(",")[0] == preset
    changed = {name for table in PRESETS[preset].values() for name in table}
    values = vars(request.settings) | request.model
    assert changed <= found.keys()
    for name, words in found.items():
        value, _, place = words.rpartition(", ")
        if place == f"preset {preset}":
            assert name in changed and value == as_text(values[name])
        elif name in values:
            value = value if place == "given" else words
            assert name not in changed and value == as_text(values[name])


def test_recipe_and_flags_are_told_apart(capsys, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[model]\npreset = "base"\nnum_heads = 16\n[optimisation]\nsteps = 7\n')
    found = shown(help_of(capsys, "--recipe", str(recipe), "--steps", "8"))
    assert found["steps"] == "8, given" and found["preset"] == "base"
    assert found["num_heads"].startswith("16, ") and found["num_heads"].endswith("r.toml")
    assert found["hidden_dim"] == "512, preset base" and found["adam_beta2"] == "0.98"


def test_a_resumed_run_has_its_own_values(capsys):
    text = help_of(capsys, "--resume", "runs/a")
    assert shown(text) == {} and "--steps" in text


def test_help_that_cannot_be_true_is_refused(capsys):
    from transformer_spec import UserError

    with pytest.raises(UserError, match="smal") as caught:
        parse(["--preset", "smal", "--help"])
    assert "small" in caught.value.faults[0] and capsys.readouterr().out == ""


def test_presets_are_listed_with_what_they_change():
    text = " ".join(parser().format_help().split("presets:")[1].split())
    for name, tables in PRESETS.items():
        for table in tables.values():
            for setting, value in table.items():
                assert f"{setting} {as_text(value)}" in text, (name, setting)


def test_every_flag_is_a_setting_or_of_the_command():
    assert ALL.keys() >= SETTINGS.keys() | INVOCATION.keys()
