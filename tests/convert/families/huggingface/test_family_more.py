"""Pegasus, both Blenderbots, PLBart and FSMT checkpoints against their classes in float64."""

import numpy as np
import pytest
import torch
from convert_cases import convert
from family_checks import assert_same_logits, import_source
from huggingface_cases import (
    TINY,
    assert_damage_is_named,
    assert_exported,
    assert_imported,
    exported,
    fault_of,
    ids_of,
    library_logits,
    our_config,
    our_weights,
    random_model,
    saved,
    settings_only,
    with_settings,
    with_tensors,
)
from huggingface_configs import (
    BLENDERBOT,
    BLENDERBOT_SMALL,
    EVERY_V4_CONFIG,
    FSMT,
    MBART_50,
    PEGASUS,
    PLBART,
)
from transformers import (
    BlenderbotConfig,
    BlenderbotForConditionalGeneration,
    BlenderbotSmallConfig,
    BlenderbotSmallForConditionalGeneration,
    FSMTConfig,
    FSMTForConditionalGeneration,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PLBartConfig,
    PLBartForConditionalGeneration,
)

from convert.families.registry import FAMILIES, recognize
from convert.formats.safetensors import open_safetensors

TWO = {"src_vocab_size": 29, "tgt_vocab_size": 23}
CLASSES = {
    "pegasus": (PegasusConfig, PegasusForConditionalGeneration, {}),
    "blenderbot": (BlenderbotConfig, BlenderbotForConditionalGeneration, {}),
    "blenderbot-small": (BlenderbotSmallConfig, BlenderbotSmallForConditionalGeneration, {}),
    "plbart": (PLBartConfig, PLBartForConditionalGeneration, {}),
    "fsmt": (FSMTConfig, FSMTForConditionalGeneration, TWO),
}
EVEN = {"d_model": 14, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
CASES = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False, "activation_function": "relu"},
    "other ids": {"pad_token_id": 3, "eos_token_id": 1, "decoder_start_token_id": 1}
    | EVEN
    | {"scale_embedding": False, "activation_function": "gelu_new"},
}


def build(kind: str, **changes):
    config_class, model_class, sizes = CLASSES[kind]
    values = TINY | sizes | changes
    if sizes:
        values.pop("vocab_size")
        values["tgt_vocab_size"] += 6 * values.get("tie_word_embeddings", False)
    return random_model(model_class, config_class(**values))


@pytest.mark.sampled(8)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", CLASSES)
def test_same_logits_and_back(kind, case, tmp_path):
    family, model = FAMILIES[kind], build(kind, **CASES[case])
    source = saved(model, tmp_path)
    assert recognize(source) is family
    config = assert_imported(family, model, source)
    untied = case == "untied" or (kind == "fsmt" and case != "tied")
    assert config.tied_embeddings == ("none" if untied else "all")
    assert family.write_settings(config, source.settings) == source.settings


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("ties", ["all", "none"])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_of_ours_for_the_library(kind, ties, tmp_path):
    family = FAMILIES[kind]
    changes = {"tied_embeddings": ties, "activation": "gelu", "unk_id": 3}
    assert_exported(family, CLASSES[kind][1], our_config(family, **changes), tmp_path)


PUBLISHED = {
    "pegasus": PEGASUS,
    "blenderbot": BLENDERBOT,
    "blenderbot-small": BLENDERBOT_SMALL,
    "plbart": PLBART,
    "fsmt": FSMT,
}
EXPECTED = {
    "pegasus": {"norm_position": "pre", "final_norm": True, "unk_id": 105, "embedding_scale": 32},
    "blenderbot": {"norm_position": "pre", "final_norm": True, "unk_id": 3, "max_length": 128},
    "blenderbot-small": {"norm_position": "post", "embedding_norm": True, "max_length": 512}
    | {"encoder_positions": "learned", "decoder_positions": "learned_after_norm"},
    "plbart": {"norm_position": "post", "embedding_norm": True, "position_offset": 2},
    "fsmt": {"positions_skip_padding": True, "position_offset": 2, "target_vocab_size": 31640}
    | {"tied_embeddings": "target_output", "decoder_start_id": 2},
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_settings(kind):
    family, published = FAMILIES[kind], PUBLISHED[kind]
    config = family.read_config(settings_only(**published)).config
    assert {name: getattr(config, name) for name in EXPECTED[kind]} == EXPECTED[kind]
    assert family.write_settings(config, published) == published


@pytest.mark.parametrize("kind", CLASSES)
def test_every_key_of_the_library_is_known(kind):
    family, config_class = FAMILIES[kind], CLASSES[kind][0]
    settings = config_class().to_dict()
    family.read_config(settings_only(**settings))
    family.read_config(settings_only(**(EVERY_V4_CONFIG | settings)))
    usual = {key: getattr(config_class(), key, None) for key in family.defaults}
    assert usual == dict(family.defaults)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("stored", ["both", "table alone"])
def test_fsmt_of_transformers_4_has_one_table_for_input_and_output(stored, tmp_path):
    family, model = FAMILIES["fsmt"], build("fsmt")
    with torch.no_grad():
        model.model.decoder.output_projection.weight.copy_(model.model.decoder.embed_tokens.weight)
    source = with_settings(saved(model, tmp_path), transformers_version="4.57.6")
    if stored == "table alone":
        source = with_tensors(source, model__decoder__output_projection__weight=None)
    config = assert_imported(family, model, source)
    assert config.tied_embeddings == "target_output"
    (note,) = family.read_config(source).notes
    assert "as in transformers 4" in note
    assert family.write_settings(config, source.settings) == source.settings


@pytest.mark.usefixtures("float64")
def test_fsmt_of_ours_with_a_tied_output(tmp_path):
    """The library of today loads it as two equal weights."""
    family = FAMILIES["fsmt"]
    config = our_config(family, tied_embeddings="target_output", target_vocab_size=31)
    weights = our_weights(config)
    model = exported(family, FSMTForConditionalGeneration, config, weights, tmp_path)
    ids = ids_of(config)
    assert_same_logits(family, config, weights, *ids, library_logits(model, *ids), "out")
    again = family.read_config(settings_only(**family.write_settings(config, None))).config
    assert again.tied_embeddings == "target_output"


@pytest.mark.usefixtures("float64")
def test_fsmt_positions_count_tokens_that_are_no_padding(tmp_path):
    family, model = FAMILIES["fsmt"], build("fsmt")
    config, canonical = import_source(family, saved(model, tmp_path))
    one, two = ids_of(config)
    one[1, :3] = two[1, 1:3] = config.pad_id
    assert_same_logits(family, config, canonical, one, two, library_logits(model, one, two))


@pytest.mark.parametrize("kind", ["pegasus", "fsmt"])
def test_stored_sinusoids_are_checked(kind, tmp_path):
    family, model = FAMILIES[kind], build(kind)
    source = saved(model.float(), tmp_path)
    name = "model.encoder.embed_positions.weight"
    table = source.tensors.read(name)
    wrong = with_tensors(source, **{name.replace(".", "__"): table[::-1].copy()})
    assert "not the sinusoids of this model" in fault_of(import_source, family, wrong)
    config = family.read_config(source).config
    rules = family.rules(config, family.written(config))
    (rule,) = (rule for rule in rules if name in rule.sources)
    (again,) = rule.reversed.operation.forward()
    assert again.shape == table.shape and np.abs(again - table).max() < 1e-6


def test_plbart_starts_from_the_language():
    reading = FAMILIES["plbart"].read_config(settings_only(**PLBART))
    assert reading.config.decoder_start_id == 2
    assert "decoder_start_token_id is not set" in reading.notes[0]


def test_a_small_pegasus_has_another_unknown_token():
    config = FAMILIES["pegasus"].read_config(settings_only(**(PEGASUS | {"vocab_size": 40}))).config
    assert config.unk_id == 3


def test_mbart_50_is_an_mbart():
    source = settings_only(**MBART_50)
    reading = FAMILIES["mbart"].read_config(source)
    assert recognize(source) is FAMILIES["mbart"]
    assert reading.config.decoder_start_id == 2 and not reading.notes
    assert FAMILIES["mbart"].write_settings(reading.config, MBART_50) == MBART_50


@pytest.mark.parametrize("kind", CLASSES)
def test_damaged_tensors_are_named(kind, tmp_path):
    source = saved(build(kind), tmp_path)
    assert_damage_is_named(FAMILIES[kind], source, "model.decoder.layers.1.fc2.weight")


@pytest.mark.parametrize("kind", CLASSES)
def test_settings_of_ours_that_the_class_has_not(kind):
    family = FAMILIES[kind]
    other = {"pre": "post", "post": "pre"}[family.fields["norm_position"]]
    wrong = {"norm_position": other, "norm_epsilon": 1e-6, "decoder_positions": "none"}
    message = fault_of(family.written, our_config(family, **wrong))
    assert all(f"{name} is" in message for name in wrong)
    if kind == "fsmt":
        start = our_config(family, decoder_start_id=0)
        assert "decoder_start_id is pad_id 0" in fault_of(family.written, start)


@pytest.mark.usefixtures("float64")
def test_blenderbot_small_without_a_scale_is_the_class_as_it_is(tmp_path):
    """The class of transformers 5 leaves the scale out of the decoder; the note says so."""
    family, model = FAMILIES["blenderbot-small"], build("blenderbot-small", scale_embedding=False)
    model.model.decoder.embed_tokens._forward_hooks.clear()
    source = saved(model, tmp_path)
    assert_imported(family, model, source)
    assert not family.read_config(source).notes
    (note,) = family.read_config(with_settings(source, scale_embedding=True)).notes
    assert "the decoder of 4.57 and 5 leaves the factor out" in note


@pytest.mark.parametrize("kind", CLASSES)
def test_moments_go_the_way_of_the_weights(kind, tmp_path, capsys):
    """A folder of the library with the optimizer that trained what is trained."""
    model = build(kind).float()
    sinusoids = ("pegasus", "fsmt")
    trained = [
        parameter
        for name, parameter in model.named_parameters()
        if kind not in sinusoids or "embed_positions" not in name
    ]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    for parameter in trained:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    model.save_pretrained(tmp_path / "a")
    (tmp_path / "a/model.safetensors").unlink()  # it has no order of parameters
    torch.save(model.state_dict(), tmp_path / "a/pytorch_model.bin")
    torch.save(optimizer.state_dict(), tmp_path / "a/optimizer.pt")
    convert(tmp_path / "a", tmp_path / "b", "--to", "torch")
    assert "optimizer moments carried (1 step" in capsys.readouterr().out
    found = open_safetensors(tmp_path / "b/optimizer.safetensors")
    theirs = {
        "decoder.dec_layers.1.multiheadattention2.fcK.weight": (
            "decoder.layers.1.encoder_attn.k_proj"
        ),
        "encoder.embedding.weight": "encoder.embed_tokens" if kind == "fsmt" else "shared",
    }
    for ours, name in theirs.items():
        state = optimizer.state[model.get_parameter(f"model.{name}.weight")]
        assert (found.read(f"exp_avg/{ours}") == state["exp_avg"].numpy()).all()
    convert(tmp_path / "b", tmp_path / "c", "--to", kind, "--container", "pt")
    again = torch.load(tmp_path / "c/optimizer.pt", weights_only=True)["state"]
    before = optimizer.state_dict()["state"]
    assert again.keys() == before.keys()
    assert all((again[i]["exp_avg_sq"] == before[i]["exp_avg_sq"]).all() for i in before)
