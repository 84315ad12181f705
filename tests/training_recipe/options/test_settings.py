"""Settings from flags, recipes and presets: precedence, and every fault named at once."""

import dataclasses
import json

import pytest
from messages import saying, says

from training_recipe.options.flags import parse
from training_recipe.options.presets import PRESETS
from training_recipe.options.request import ALL, INVOCATION, MODEL, RECIPES
from training_recipe.options.settings import SETTINGS, TrainingSettings
from transformer_spec import TransformerConfig, UserError
from transformer_spec.declarations import REQUIRED


def faults(arguments):
    with pytest.raises(UserError) as caught:
        parse(arguments)
    return str(caught.value)


class TestDeclarations:
    def test_each_setting_once(self):
        assert len(ALL) == len(SETTINGS) + len(MODEL) + len(INVOCATION)

    def test_every_default_is_allowed(self):
        assert TrainingSettings() == TrainingSettings.from_dict(TrainingSettings().to_dict())

    @pytest.mark.parametrize("name", [n for n, tables in PRESETS.items() if "model" in tables])
    def test_presets_complete_a_config(self, name):
        request = parse(["--preset", name])
        config = TransformerConfig(source_vocab_size=30, target_vocab_size=40, **request.model)
        assert config.hidden_dim == PRESETS[name]["model"]["hidden_dim"]
        needed = {n for n, d in MODEL.items() if d.default is REQUIRED}
        assert needed <= set(PRESETS[name]["model"])

    def test_base_is_the_paper_s(self):
        model = parse(["--preset", "base"]).model
        names = ("hidden_dim", "inner_dim", "num_heads", "num_encoder_layers", "num_decoder_layers")
        assert [model[n] for n in names] == [512, 2048, 8, 6, 6]

    def test_survive_json(self):
        settings = TrainingSettings(columns=("Q", "A"), data="x.tsv", clip_norm=0)
        again = TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict())))
        assert again == settings and again.columns == ("Q", "A")


class TestPrecedence:
    def test_flag_recipe_preset_default(self, tmp_path):
        recipe = tmp_path / "r.toml"
        recipe.write_text(
            '[model]\npreset = "base"\nnum_heads = 16\ninner_dim = 64\n'
            "[optimisation]\nsteps = 7\nwarmup_steps = 9\n"
        )
        request = parse(["--recipe", str(recipe), "--steps", "8", "--inner-dim", "32"])
        assert request.settings.steps == 8  # flag over recipe
        assert request.model["inner_dim"] == 32
        assert request.settings.warmup_steps == 9  # recipe over preset
        assert request.model["num_heads"] == 16
        assert request.model["hidden_dim"] == 512  # preset over default
        assert request.settings.peak_lr == 7e-4
        assert request.settings.adam_beta1 == TrainingSettings().adam_beta1
        assert request.given["num_heads"] == 16 and "peak_lr" not in request.given

    def test_a_flag_s_preset_wins_over_the_recipe_s(self, tmp_path):
        (tmp_path / "r.toml").write_text('[model]\npreset = "base"\n')
        request = parse(["--recipe", str(tmp_path / "r.toml"), "--preset", "tiny"])
        assert request.model["hidden_dim"] == PRESETS["tiny"]["model"]["hidden_dim"] != 512

    def test_types(self):
        request = parse(
            ["--columns", "Q, A", "--shared-vocabulary", "--no-ffn-bias", "--peak-lr", "1e-3",
             "--target-vocab-size", "none", "--final-norm", "--source-vocabulary", "characters",
             "--target-vocabulary", "characters", "--data", "x.csv", "--steps", "10_000"]
        )  # fmt: skip
        assert request.settings.columns == ("Q", "A")
        assert request.settings.shared_vocabulary is True and request.model["ffn_bias"] is False
        assert request.settings.peak_lr == 1e-3 and request.model["final_norm"] is True
        assert request.settings.target_vocab_size is None and request.settings.steps == 10_000

    def test_vocabulary_kinds_fit_the_data(self):
        assert parse([]).settings.vocabulary_kinds() == ("characters", "whitespace")
        kinds = parse(["--data", "corpus"]).settings.vocabulary_kinds()
        assert kinds == ("sentencepiece", "sentencepiece")

    def test_the_shipped_recipe(self):
        recipe = RECIPES / "cmudict.toml"
        assert parse(["--recipe", str(recipe)]).settings.data == "cmudict"


class TestFaults:
    def test_all_at_once(self):
        message = faults(
            ["--stesp", "5", "--peak-lr", "fast", "extra", "--schedule", "cosin", "--steps=0",
             "--hidden-dim", "100", "--num-heads", "7", "--dropout", "1.5", "--backend", "jaxx"]
        )  # fmt: skip
        for parts in (
            ("8 faults",),
            ("--stesp", "did you mean --steps?"),
            ("--peak-lr", "'fast'", "not a number"),
            ("unexpected", "'extra'"),
            ("--schedule", "'cosin'", "did you mean cosine?"),
            ("--steps", 0, "too small", "at least 1"),
            ("hidden_dim 100", "num_heads 7"),
            ("--dropout", 1.5, "too large"),
            ("--backend", "'jaxx'", "jax, torch"),
        ):
            says(message, *parts)

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("[optimisation]\nsteps = 3.5", ("steps", 3.5, "whole number")),
            ("[optimisation]\nsteps = true", ("steps", "True", "whole number")),
            ('[optimisation]\npeak_lr = "1"', ("peak_lr", "'1'", "not a number")),
            ("[optimisation]\npeak_lr = nan", ("peak_lr", "nan", "finite")),
            ("[optimisation]\nadam_beta1 = 1", ("adam_beta1", "1.0", "too large", "below 1")),
            ("[optimisation]\nadam_eps = 0", ("adam_eps", "0.0", "too small", "above 0")),
            ("[optimisation]\nstep = 3", ("step", "[optimisation]", "did you mean steps?")),
            ("[optimization]\nsteps = 3", ("[optimization]", "did you mean optimisation?")),
            ("[run]\nsteps = 3", ("steps", "[optimisation]", "not in [run]")),
            ("steps = 3", ("steps", "no table", "[optimisation]")),
            ('[run]\nbackend = "jax"', ("backend", "command line")),
            ("[data]\ncolumns = [1, 2]", ("columns", "[1, 2]", "list of names")),
            ("[data]\nshared_vocabulary = 1", ("shared_vocabulary", 1, "true or false")),
            ("[data\n", ("r.toml", "cannot be read")),
            ("[model]\nsource_vocab_size = 7", ("source_vocab_size", "[data]")),
            ("[model]\npad_id = 1", ("unknown", "pad_id", "[model]")),
        ],
    )
    def test_in_recipes(self, text, parts, tmp_path):
        (tmp_path / "r.toml").write_text(text)
        says(faults(["--recipe", str(tmp_path / "r.toml")]), *parts)

    def test_missing_recipe(self):
        assert "--recipe none.toml: no such file" in faults(["--recipe", "none.toml"])

    def test_recipe_that_is_not_text(self, tmp_path):
        (tmp_path / "r.toml").write_bytes(b"\xff\xfe")
        assert "cannot be read" in faults(["--recipe", str(tmp_path / "r.toml")])

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["--name", "a", "--out", "b"], ("--name", "--out")),
            (["--name", "a/b"], ("--name a/b", "plain name")),
            (["--name", ".."], ("--name ..", "plain name")),
            (["--from-step", "5"], ("--from-step", "--resume")),
            (["--resume", "r", "--name", "a", "--preset", "tiny"], ("--name", "starts a run")),
            (["--tied-embeddings", "all"], ("needs --shared-vocabulary",)),
            (
                "--data=x --shared-vocabulary --source-vocab-size 9 --target-vocab-size 8".split(),
                ("shared_vocabulary", "one size", 9, 8),
            ),
            (["--columns", "Q"], ("columns", "'Q'", "two columns")),
            (["--steps"], ("--steps", "expected one argument")),
            (
                ["--shared-vocabulary", "--source-vocabulary", "characters"],
                ("shared_vocabulary", "one kind", "characters", "whitespace"),
            ),
        ],
    )
    def test_combinations(self, arguments, parts):
        says(faults(arguments), *parts)

    def test_in_python(self):
        with pytest.raises(UserError) as caught:
            TrainingSettings(steps=-1, schedule="none", batch_tokens=1.5)
        for name in ("steps", "schedule", "batch_tokens"):
            assert f"{name}: " in str(caught.value)

    def test_unknown_in_a_file(self):
        with pytest.raises(UserError, check=saying("'stepz'", "did you mean steps")):
            TrainingSettings.from_dict({"stepz": 1})

    def test_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            TrainingSettings().steps = 3  # type: ignore[misc]


class TestAnchored:
    def test_files_have_absolute_paths_and_names_stay(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        files = {"valid": "dev", "test": "../test", "extra_data": ("a", "/b")}
        settings = TrainingSettings(data="x/train", **files).anchored()
        assert settings.data == str(tmp_path / "x/train")
        assert settings.valid == str(tmp_path / "dev")
        assert settings.test == str(tmp_path / "../test")
        assert settings.extra_data == (str(tmp_path / "a"), "/b")
        for name in ("cmudict", "multi30k-en-de"):
            assert TrainingSettings(data=name).anchored() == TrainingSettings(data=name)
        assert TrainingSettings(data="./cmudict").anchored().data == str(tmp_path / "cmudict")
