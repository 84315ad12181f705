"""M2M100 and NLLB checkpoints of Hugging Face transformers against their class in float64."""

import numpy as np
import pytest
import torch
from family_checks import assert_round_trip, assert_same_logits, import_source
from huggingface_cases import (
    TINY,
    assert_damage_is_named,
    assert_exported,
    assert_imported,
    fault_of,
    ids_of,
    in_float64,
    library_logits,
    our_config,
    random_model,
    saved,
    settings_only,
    with_tensors,
)
from huggingface_configs import EVERY_V4_CONFIG, NLLB
from transformers import M2M100Config, M2M100ForConditionalGeneration
from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding

from convert.families.huggingface.m2m100 import M2M100
from transformer_spec import sinusoid_table

FAMILY = M2M100()
CASES = {
    "tied": {},
    "untied": {"tie_word_embeddings": False, "activation_function": "gelu"},
    "other ids": {"pad_token_id": 5, "eos_token_id": 1, "decoder_start_token_id": 1}
    | {"d_model": 14, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    | {"scale_embedding": False},
}


def build(**changes):
    return random_model(M2M100ForConditionalGeneration, M2M100Config(**(TINY | changes)))


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    model = build()
    return model, saved(model, tmp_path_factory.mktemp("m2m100"))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
def test_same_logits_and_back(case, tmp_path):
    model = build(**CASES[case])
    source = saved(model, tmp_path)
    assert FAMILY.recognizes(source)
    config = assert_imported(FAMILY, model, source)
    assert config.position_offset == model.config.pad_token_id + 1
    assert config.output_bias == "none"
    assert FAMILY.write_settings(config, source.settings) == source.settings


@pytest.mark.usefixtures("float64")
def test_positions_count_tokens_that_are_no_padding(usual):
    """Padding on the left: every real token has the position that it has without it."""
    model, source = usual
    config, canonical = import_source(FAMILY, source)
    one, two = ids_of(config)
    one[1, :3] = two[1, 1:3] = config.pad_id
    assert_same_logits(FAMILY, config, canonical, one, two, library_logits(model, one, two))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "changes",
    [
        {"tied_embeddings": "all", "activation": "relu"},
        {"tied_embeddings": "none", "embedding_scale": 1.0, "pad_id": 4, "activation": "gelu_tanh"},
    ],
    ids=["all", "none"],
)
def test_a_model_of_ours_for_the_library(changes, tmp_path):
    config = our_config(FAMILY, **changes)
    assert_exported(FAMILY, M2M100ForConditionalGeneration, config, tmp_path)


@pytest.mark.usefixtures("float64")
def test_older_files_hold_every_alias_and_the_positions(usual):
    model, source = usual
    state = {name.replace(".", "__"): t.numpy() for name, t in model.state_dict().items()}
    assert len(state) == len(source.tensors) + 3
    tables = {
        f"model__{half}__embed_positions__weights": module.embed_positions.weights.numpy()
        for half, module in (("encoder", model.model.encoder), ("decoder", model.model.decoder))
    }
    old = with_tensors(source, **state, **tables)
    assert_imported(FAMILY, model, old)
    shifted = {name: np.roll(table, 1, 0) for name, table in tables.items()}
    assert "not the sinusoids" in fault_of(import_source, FAMILY, with_tensors(old, **shifted))


@pytest.mark.usefixtures("float64")
def test_one_table_for_both_halves_beside_an_output_of_its_own(tmp_path):
    """What transformers 4 saves and computes for tie_word_embeddings False."""
    model = build(tie_word_embeddings=False)
    with torch.no_grad():
        for half in (model.model.encoder, model.model.decoder):
            half.embed_tokens.weight.copy_(model.model.shared.weight)
    source = saved(model, tmp_path)
    tables = {f"model__{half}__embed_tokens__weight": None for half in ("encoder", "decoder")}
    assert_imported(FAMILY, model, with_tensors(source, **tables))


def test_a_base_model_has_no_prefix(usual, tmp_path):
    source = saved(usual[0].model, tmp_path)
    assert "shared.weight" in source.tensors
    assert_round_trip(FAMILY, source)


def test_published_settings():
    reading = FAMILY.read_config(settings_only(**NLLB))
    config = reading.config
    assert not reading.notes
    assert (config.pad_id, config.position_offset, config.decoder_start_id) == (1, 2, 2)
    assert (config.embedding_scale, config.attention_dropout, config.unk_id) == (32.0, 0.1, 3)
    assert config.norm_position == "pre" and config.final_norm and not config.embedding_norm
    assert FAMILY.write_settings(config, NLLB) == NLLB
    m2m100 = {"encoder_layerdrop": 0.05, "decoder_layerdrop": 0.05, "vocab_size": 128112}
    notes = FAMILY.read_config(settings_only(**(NLLB | m2m100))).notes
    assert [note.split()[0] for note in notes] == ["encoder_layerdrop", "decoder_layerdrop"]


def test_every_key_of_the_library_is_known():
    settings = M2M100Config().to_dict()
    FAMILY.read_config(settings_only(**settings))
    FAMILY.read_config(settings_only(**(EVERY_V4_CONFIG | settings)))
    assert {key: getattr(M2M100Config(), key) for key in FAMILY.defaults} == FAMILY.defaults


def test_all_faults_in_one_error():
    wrong = {
        "decoder_ffn_dim": 7,
        "num_experts": 128,
        "pad_token_id": 2,
    }
    message = fault_of(FAMILY.read_config, settings_only(**(NLLB | wrong)))
    assert all(key in message for key in wrong if key != "pad_token_id")
    assert "pad_id and eos_id are both 2" in message
    start = settings_only(**(NLLB | {"decoder_start_token_id": 1}))
    assert "decoder_start_id is pad_id 1" in fault_of(FAMILY.read_config, start)


def test_damaged_tensors_are_named(usual):
    _, source = usual
    assert_damage_is_named(FAMILY, source, "model.encoder.layer_norm.bias")
    bias = with_tensors(source, final_logits_bias=np.zeros((1, 29)))
    assert "extra 'final_logits_bias'" in fault_of(import_source, FAMILY, bias)


def test_settings_of_ours_that_m2m100_has_not():
    wrong = {
        "norm_position": "post",
        "final_norm": False,
        "embedding_norm": True,
        "decoder_positions": "learned",
        "sinusoid_layout": "interleaved",
        "sinusoid_frequency": "2i/d",
        "position_offset": 0,
        "positions_skip_padding": False,
        "output_bias": "trained",
        "tied_embeddings": "target_output",
        "decoder_start_id": 0,
    }
    message = fault_of(FAMILY.written, our_config(FAMILY, **wrong))
    assert all(f"{name} is" in message for name in wrong)
    assert message.count("\n") == len(wrong)
    late = our_config(FAMILY, pad_id=20, max_length=13)
    assert "outside the 15 rows" in fault_of(FAMILY.written, late)


@pytest.mark.parametrize("width", [14, 15])
def test_the_library_computes_the_same_positions(width):
    with in_float64():
        table = M2M100SinusoidalPositionalEmbedding(13, width, 1).weights.numpy()
    config = our_config(FAMILY, hidden_dim=width, num_heads=1, pad_id=1)
    ours = sinusoid_table(config, np.float64)
    assert ours.shape == table.shape
    assert np.abs(ours - table)[2:].max() < 1e-14
