"""Only the dictionary gets the preset that is tuned to it."""

import pytest

from training_recipe.options.flags import parse
from training_recipe.options.presets import PRESETS


def test_the_dictionary_s_is_as_its_figures_were_measured():
    request = parse(["--backend", "jax"])
    assert request.invocation.preset == "tiny"
    settings, model = request.settings, request.model
    assert (settings.steps, settings.evaluate_every, settings.save_every) == (2600, 1300, 1300)
    assert (settings.peak_lr, settings.warmup_steps, settings.batch_tokens) == (3e-3, 260, 1024)
    assert (model["hidden_dim"], model["dropout"], model["norm_position"]) == (128, 0.0, "pre")


@pytest.mark.parametrize("data", ["pairs.csv", "corpus/train", "multi30k-en-de", "korean-chatbot"])
def test_other_data_drops_out_and_saves_often(data):
    request = parse(["--data", data])
    assert request.invocation.preset == "small" and "preset" not in request.given
    assert request.model["hidden_dim"] == PRESETS["small"]["model"]["hidden_dim"]
    assert request.model["dropout"] > 0
    settings = request.settings
    assert max(settings.save_every, settings.evaluate_every) <= settings.steps // 20
    assert 0 < settings.save_minutes <= 15


def test_a_recipe_s_data_and_preset_count(tmp_path):
    (tmp_path / "r.toml").write_text('[data]\ndata = "pairs.csv"\n')
    assert parse(["--recipe", str(tmp_path / "r.toml")]).invocation.preset == "small"
    (tmp_path / "r.toml").write_text('[data]\ndata = "x.csv"\n[model]\npreset = "tiny"\n')
    assert parse(["--recipe", str(tmp_path / "r.toml")]).invocation.preset == "tiny"
