"""``--init FOLDER`` brings a model: what would make another one of it is an error, all at once."""

import pytest

from training_recipe.options.flags import parse
from training_recipe.options.presets import PRESETS
from training_recipe.options.request import MODEL
from transformer_spec import UserError

DATA = ["--data", "pairs.tsv"]
INIT = ["--init", "some/folder", *DATA]


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(list(arguments))
    return str(caught.value)


def test_its_preset_is_what_such_models_are_trained_by():
    request = parse(INIT)
    settings = request.settings
    assert request.invocation.preset == "finetune" and request.model == {}
    assert (settings.peak_lr, settings.schedule, settings.warmup_steps) == (5e-5, "linear", 0)
    assert (settings.label_smoothing, settings.weight_decay, settings.clip_norm) == (0, 0, 1)
    adam = (settings.adam_beta1, settings.adam_beta2, settings.adam_eps)
    assert adam == (0.9, 0.999, 1e-8)
    assert max(settings.evaluate_every, settings.save_every) <= settings.steps // 4


def test_flags_win_and_dropout_may_be_given():
    request = parse([*INIT, "--peak-lr", "1e-3", "--dropout", "0.3", "--attention-dropout", "0"])
    assert request.settings.peak_lr == 1e-3
    assert request.model == {"dropout": 0.3, "attention_dropout": 0.0}
    assert "model" not in PRESETS["finetune"]


def test_a_preset_without_a_model_stays_out_of_other_runs():
    assert "--init FOLDER" in refused("--preset", "finetune", *DATA)


def test_everything_that_comes_with_the_model_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.tsv").touch()
    said = refused(
        *INIT, "--hidden-dim", "8", "--max-length", "9", "--source-vocabulary", "characters",
        "--target-vocab-size", "99", "--shared-vocabulary", "--init-gain", "0.5",
    )  # fmt: skip
    for flag in (
        "--hidden-dim", "--max-length", "--source-vocabulary", "--target-vocab-size",
        "--shared-vocabulary", "--init-gain", "some/folder",
    ):  # fmt: skip
        assert flag in said
    assert said.count("\n") == 0


@pytest.mark.parametrize("name", sorted(set(MODEL) - {"preset"}))
def test_of_the_model_only_dropout_may_be_given(name):
    declaration = MODEL[name]
    value = [] if declaration.type is bool else [(declaration.choices or ("1",))[0]]
    if name.endswith("dropout"):
        assert set(parse([*INIT, declaration.flag, "0.25"]).model) == {name}
    else:
        assert f"leave out {declaration.flag}" in refused(*INIT, declaration.flag, *value)


def test_a_recipe_with_a_model_is_named(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        '[model]\npreset = "base"\nnum_heads = 16\n[data]\nshared_vocabulary = true\n'
    )
    said = refused(*INIT, "--recipe", str(recipe), "--hidden-dim", "8")
    assert f"{recipe}: --init" in said and "num_heads" in said and "shared_vocabulary" in said
    assert "leave out --hidden-dim" in said
    assert "preset base has sizes of a model" in said


def test_a_recipe_may_name_the_folder(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[model]\ninit = "some/folder"\n[data]\ndata = "x.tsv"\n')
    request = parse(["--recipe", str(recipe)])
    assert request.settings.init == "some/folder" and request.invocation.preset == "finetune"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--init", "some/folder"], "--init needs --data"),
        (["--init", "", *DATA], "--init is empty"),
        (["--init", "some/folder", "--resume", "runs/a"], "--init starts a run"),
        ([*INIT, "--preset", "small"], "preset small has sizes of a model"),
        ([*INIT, "--languages", "de,en,fr"], "must name source and target"),
        ([*INIT, "--languages", "de,"], "must name source and target"),
        ([*DATA, "--languages", "en,de"], "which --init begins with"),
        ([*INIT, "--dropout", "1"], "must be below 1"),
    ],
)
def test_what_does_not_go_together(arguments, words):
    assert words in refused(*arguments)


def test_the_folder_is_found_from_everywhere_and_a_name_of_the_hub_stays_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for given, kept in (("mine", str(tmp_path / "mine")), ("owner/name", "owner/name")):
        settings = parse(["--init", given, *DATA]).settings
        assert settings.anchored().init == kept


def test_help_shows_what_the_model_brings_and_nothing_else(capsys):
    with pytest.raises(SystemExit):
        parse([*INIT, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "[5e-05, preset finetune]" in said and "[some/folder, given]" in said
    assert said.count("[the model's own]") == 3
    assert "width D of every token's vector --" in said
