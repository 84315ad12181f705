"""BART and mBART checkpoints of Hugging Face transformers against their classes in float64."""

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
    library_logits,
    our_config,
    random_model,
    saved,
    settings_only,
    with_settings,
    with_tensors,
)
from huggingface_configs import BART, EVERY_V4_CONFIG, MBART
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MBartConfig,
    MBartForConditionalGeneration,
)

from convert.families.huggingface.bart import Bart, MBart

CLASSES = {
    "bart": (Bart(), BartConfig, BartForConditionalGeneration),
    "mbart": (MBart(), MBartConfig, MBartForConditionalGeneration),
}
CASES = {
    "tied": {"scale_embedding": False},
    "untied": {"tie_word_embeddings": False, "activation_function": "relu"},
    "other ids": {"pad_token_id": 3, "eos_token_id": 1, "decoder_start_token_id": 1}
    | {"d_model": 14, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    | {"activation_function": "gelu_new"},
}
OURS = {
    "all": {"tied_embeddings": "all", "output_bias": "trained", "activation": "gelu"},
    "none": {"tied_embeddings": "none", "embedding_scale": 1.0, "activation": "silu"},
}


def build(kind: str, **changes):
    _, config_class, model_class = CLASSES[kind]
    return random_model(model_class, config_class(**(TINY | changes)))


@pytest.fixture(scope="module", params=CLASSES)
def usual(request, tmp_path_factory):
    """(family, model, what the library saves of it)."""
    model = build(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    return CLASSES[request.param][0], model, saved(model, folder)


@pytest.mark.sampled(4)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", CLASSES)
def test_same_logits_and_back(kind, case, tmp_path):
    family, model = CLASSES[kind][0], build(kind, **CASES[case])
    source = saved(model, tmp_path)
    assert [f.name for f, *_ in CLASSES.values() if f.recognizes(source)] == [kind]
    config = assert_imported(family, model, source)
    assert config.tied_embeddings == ("none" if case == "untied" else "all")
    assert config.position_offset == 2
    assert family.write_settings(config, source.settings) == source.settings


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("ties", OURS)
@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_of_ours_for_the_library(kind, ties, tmp_path):
    family, _, model_class = CLASSES[kind]
    assert_exported(family, model_class, our_config(family, **OURS[ties]), tmp_path)


@pytest.mark.usefixtures("float64")
def test_the_translation_starts_from_the_language(tmp_path):
    model = build("mbart", decoder_start_token_id=None)
    source = saved(model, tmp_path)
    reading = MBart().read_config(source)
    assert reading.config.decoder_start_id == reading.config.eos_id == 2
    (note,) = reading.notes
    assert "decoder_start_token_id is not set" in note and "eos_id 2" in note
    assert_imported(MBart(), model, source)
    assert MBart().write_settings(reading.config, source.settings) == source.settings

    romanian = type(source)(source.tensors, source.settings, {"decoder_start_id": 20})
    config = MBart().read_config(romanian).config
    assert config.decoder_start_id == 20
    assert MBart().write_settings(config, source.settings)["decoder_start_token_id"] == 20


def test_bart_needs_its_start():
    message = fault_of(
        Bart().read_config, settings_only(**(BART | {"decoder_start_token_id": None}))
    )
    assert "decoder_start_token_id is missing" in message


@pytest.mark.usefixtures("float64")
def test_older_files_hold_every_alias_and_fairseqs_marks(usual):
    family, model, source = usual
    state = {name.replace(".", "__"): t.numpy() for name, t in model.state_dict().items()}
    assert len(state) == len(source.tensors) + 3
    marks = {f"{half}__version": np.ones(1, np.float32) * 3 for half in ("encoder", "decoder")}
    assert_imported(family, model, with_tensors(source, **state, **marks))
    prefixed = {f"model__{name}": mark for name, mark in marks.items()}
    assert_round_trip(family, with_tensors(source, **prefixed))


@pytest.mark.usefixtures("float64")
def test_one_table_for_both_halves_beside_an_output_of_its_own(tmp_path):
    """What transformers 4 saves and computes for tie_word_embeddings False."""
    model = build("mbart", tie_word_embeddings=False)
    with torch.no_grad():
        for half in (model.model.encoder, model.model.decoder):
            half.embed_tokens.weight.copy_(model.model.shared.weight)
    source = saved(model, tmp_path)
    tables = {f"model__{half}__embed_tokens__weight": None for half in ("encoder", "decoder")}
    assert_imported(MBart(), model, with_tensors(source, **tables))


@pytest.mark.usefixtures("float64")
def test_a_base_model_has_no_prefix_and_no_output_bias(usual, tmp_path):
    family, model, _ = usual
    source = saved(model.model, tmp_path)
    config, canonical = import_source(family, source)
    assert config.output_bias == "none" and "shared.weight" in source.tensors
    ids = ids_of(config)
    expected = library_logits(model, *ids) - model.final_logits_bias.numpy()
    assert_same_logits(family, config, canonical, *ids, expected)
    assert_round_trip(family, source)


@pytest.mark.parametrize("published", [BART, MBART], ids=CLASSES)
def test_published_settings(published):
    family = CLASSES[published["model_type"]][0]
    reading = family.read_config(settings_only(**published))
    config = reading.config
    is_mbart = family.name == "mbart"
    assert len(reading.notes) == is_mbart
    assert config.embedding_scale == (32 if is_mbart else 1)
    assert (config.norm_position, config.final_norm) == (("post", False), ("pre", True))[is_mbart]
    assert config.embedding_norm and config.activation == "gelu" and config.unk_id == 3
    assert family.write_settings(config, published) == published


@pytest.mark.parametrize("kind", CLASSES)
def test_every_key_of_the_library_is_known(kind):
    family, config_class, _ = CLASSES[kind]
    settings = config_class().to_dict()
    family.read_config(settings_only(**settings))
    family.read_config(settings_only(**(EVERY_V4_CONFIG | settings)))
    assert {key: getattr(config_class(), key) for key in family.defaults} == family.defaults


def test_notes_of_training(usual):
    family, _, source = usual
    changed = with_settings(source, encoder_layerdrop=0.1, decoder_layerdrop=0.2)
    notes = family.read_config(changed).notes
    assert [note.split()[0] for note in notes] == ["encoder_layerdrop", "decoder_layerdrop"]


def test_damaged_tensors_are_named(usual):
    family, _, source = usual
    assert_damage_is_named(family, source, "model.decoder.layers.1.fc2.weight")
    assert_damage_is_named(family, source, "model.encoder.embed_positions.weight")


@pytest.mark.parametrize("kind", CLASSES)
def test_settings_of_ours_that_the_class_has_not(kind):
    family = CLASSES[kind][0]
    wrong = {
        "norm_position": "post" if kind == "mbart" else "pre",
        "final_norm": kind == "bart",
        "embedding_norm": False,
        "norm_epsilon": 1e-6,
        "encoder_positions": "sinusoidal",
        "decoder_positions": "none",
        "position_offset": 0,
        "positions_skip_padding": True,
        "tied_embeddings": "target_output",
        "attention_scale": 1.0,
        "attention_bias": False,
    }
    config = our_config(family, target_vocab_size=31, **wrong)
    message = fault_of(family.written, config)
    assert all(f"{name} is" in message for name in wrong)
    assert "target_vocab_size 31 differ" in message
    assert message.count("\n") == len(wrong) + 1


def test_second_names_of_a_setting_follow_the_first():
    settings = BART | {"hidden_size": 1024, "num_attention_heads": 16}
    config = Bart().read_config(settings_only(**settings)).config
    assert Bart().write_settings(config, settings) == settings
    changed = type(config)(**(config.to_dict() | {"num_heads": 8, "attention_scale": None}))
    heads = ("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads")
    assert Bart().write_settings(changed, settings) == settings | dict.fromkeys(heads, 8)


def test_no_word_on_the_scale_of_embeddings_is_none(tmp_path):
    """The class asks whether the setting holds, and null does not."""
    model = random_model(BartForConditionalGeneration, BartConfig(**TINY))
    source = with_settings(saved(model, tmp_path), scale_embedding=None)
    assert Bart().read_config(source).config.embedding_scale == 1.0
