"""Marian checkpoints of Hugging Face transformers against ``MarianMTModel`` in float64."""

import numpy as np
import pytest
import torch
from family_checks import assert_round_trip, assert_same_logits, export_source, import_source
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
    with_settings,
    with_tensors,
)
from huggingface_configs import EVERY_V4_CONFIG, MARIAN
from messages import says
from transformers import MarianConfig, MarianMTModel
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from convert.families.huggingface.keys import ACTIVATIONS
from convert.families.huggingface.marian import Marian
from transformer_spec import sinusoid_table

FAMILY = Marian()
# As OPUS models have it: decoding starts from padding, which is the last id.
OPUS = {"pad_token_id": 28, "decoder_start_token_id": 28, "eos_token_id": 0, "bos_token_id": None}
SEPARATE = {"share_encoder_decoder_embeddings": False}
CASES = {
    "shared": OPUS | {"activation_function": "swish"},
    "separate vocabularies": SEPARATE
    | {"decoder_vocab_size": 19, "pad_token_id": 18, "decoder_start_token_id": 18}
    | {"activation_function": "gelu", "scale_embedding": False},
    "untied": SEPARATE | {"tie_word_embeddings": False, "activation_function": "gelu_new"},
    "untied, shared unused": {"tie_word_embeddings": False, "activation_function": "quick_gelu"},
}
TIES = {
    "shared": "all",
    "separate vocabularies": "target_output",
    "untied": "none",
    "untied, shared unused": "none",
}


def tiny(**changes) -> MarianConfig:
    return MarianConfig(**(TINY | changes))


@pytest.fixture(scope="module")
def opus(tmp_path_factory):
    """A model of the usual kind and what the library saves of it."""
    model = random_model(MarianMTModel, tiny(**CASES["shared"]))
    return model, saved(model, tmp_path_factory.mktemp("opus"))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
def test_same_logits_and_back(case, tmp_path):
    model = random_model(MarianMTModel, tiny(**CASES[case]))
    source = saved(model, tmp_path)
    assert FAMILY.recognizes(source)
    config = assert_imported(FAMILY, model, source)
    assert config.tied_embeddings == TIES[case] and config.output_bias == "frozen"
    assert config.target_vocab_size == model.config.decoder_vocab_size
    assert FAMILY.write_settings(config, source.settings) == source.settings


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "changes",
    [
        {"tied_embeddings": "all", "output_bias": "trained", "activation": "silu", "pad_id": 28}
        | {"decoder_start_id": 28},
        {"tied_embeddings": "target_output", "target_vocab_size": 19, "activation": "gelu_sigmoid"},
        {"tied_embeddings": "none", "output_bias": "frozen", "embedding_scale": 1.0}
        | {"activation": "identity"},
    ],
    ids=["all", "target_output", "none"],
)
def test_a_model_of_ours_for_the_library(changes, tmp_path):
    assert_exported(FAMILY, MarianMTModel, our_config(FAMILY, **changes), tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays(dtype, opus, tmp_path):
    model = MarianMTModel(tiny(**OPUS)).to(dtype)
    source = saved(model, tmp_path)
    config, canonical = import_source(FAMILY, source)
    assert {str(array.dtype) for array in canonical.values()} == {str(dtype).split(".")[1]}
    assert_round_trip(FAMILY, source)


@pytest.mark.usefixtures("float64")
def test_older_files_hold_every_alias_and_the_positions(opus):
    model, source = opus
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert len(state) == len(source.tensors) + 5
    old = with_tensors(source, **{n.replace(".", "__"): a for n, a in state.items()})
    assert_imported(FAMILY, model, old)
    rounded = {
        n.replace(".", "__"): a.astype(np.float16) for n, a in state.items() if "positions" in n
    }
    assert_round_trip(FAMILY, with_tensors(old, **rounded))


def test_positions_that_are_no_sinusoids_are_refused(opus):
    model, source = opus
    table = model.model.encoder.embed_positions.weight.numpy()
    other = with_tensors(source, model__encoder__embed_positions__weight=table[::-1])
    assert "not the sinusoids of this model" in fault_of(import_source, FAMILY, other)
    narrow = with_tensors(source, model__encoder__embed_positions__weight=table[:, :-1])
    assert "positions of the model" in fault_of(import_source, FAMILY, narrow)


def test_aliases_that_differ_are_refused(opus):
    _, source = opus
    table = source.tensors.read("model.shared.weight")
    other = with_tensors(source, lm_head__weight=table + 1)
    assert "should be one (tied) differ" in fault_of(import_source, FAMILY, other)


@pytest.mark.usefixtures("float64")
def test_one_table_for_both_halves_beside_an_output_of_its_own(tmp_path):
    """What transformers 4 saves and computes for tie_word_embeddings False."""
    model = random_model(MarianMTModel, tiny(tie_word_embeddings=False))
    with torch.no_grad():
        for half in (model.model.encoder, model.model.decoder):
            half.embed_tokens.weight.copy_(model.model.shared.weight)
    tables = {f"model__{half}__embed_tokens__weight": None for half in ("encoder", "decoder")}
    assert_imported(FAMILY, model, with_tensors(saved(model, tmp_path), **tables))


@pytest.mark.usefixtures("float64")
def test_a_base_model_has_no_prefix_and_no_output_bias(opus, tmp_path):
    model, _ = opus
    config, canonical = import_source(FAMILY, source := saved(model.model, tmp_path))
    assert config.output_bias == "none" and "shared.weight" in source.tensors
    ids = ids_of(config)
    expected = library_logits(model, *ids) - model.final_logits_bias.numpy()
    assert_same_logits(FAMILY, config, canonical, *ids, expected)
    assert_round_trip(FAMILY, source)


def test_published_settings():
    reading = FAMILY.read_config(settings_only(**MARIAN))
    config = reading.config
    assert not reading.notes
    assert (config.activation, config.embedding_scale) == ("silu", 512**0.5)
    assert (config.pad_id, config.decoder_start_id, config.eos_id, config.unk_id) == (
        58100, 58100, 0, 1,
    )  # fmt: skip
    assert (config.max_length, config.dropout, config.tied_embeddings) == (512, 0.1, "all")
    assert FAMILY.write_settings(config, MARIAN) == MARIAN


def test_every_key_of_the_library_is_known():
    settings = MarianConfig().to_dict()
    assert not FAMILY.read_config(settings_only(**settings)).notes
    FAMILY.read_config(settings_only(**(EVERY_V4_CONFIG | settings)))


def test_defaults_are_the_classs():
    assert {key: getattr(MarianConfig(), key) for key in FAMILY.defaults} == FAMILY.defaults


def test_all_faults_in_one_error():
    wrong = {
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 1024,
        "activation_function": "mish",
        "pruned_heads": {"0": [1]},
        "quantization_config": {"bits": 4},
        "decoder_vocab_size": 7,
        "dropout": None,
        "hidden_size": 256,
        "rope_theta": 1.0,
    }
    message = fault_of(FAMILY.read_config, settings_only(**(MARIAN | wrong)))
    for key in wrong:
        assert key in message, key
    assert message.count("\n") == len(wrong) + 1
    assert message.endswith("--ignore-setting rope_theta")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"pad_token_id": None}, "pad_token_id is missing"),
        ({"d_model": "512"}, "hidden_dim: '512'"),
        ({"dropout": 1.5}, "dropout: 1.5"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id is missing"),
        ({"encoder_attention_heads": 3, "decoder_attention_heads": 3}, "not divisible"),
        ({"eos_token_id": []}, "eos_token_id is []"),
        ({"activation_function": ["relu"]}, "activation_function is ['relu']"),
    ],
)
def test_values_that_cannot_be(changes, words):
    assert words in fault_of(FAMILY.read_config, settings_only(**(MARIAN | changes)))


def test_no_settings_at_all(opus):
    _, source = opus
    bare = type(source)(source.tensors)
    assert not FAMILY.recognizes(bare)
    assert "config.json" in fault_of(FAMILY.read_config, bare)


def test_notes_and_lists_of_one(opus):
    _, source = opus
    changed = with_settings(source, encoder_layerdrop=0.1, num_hidden_layers=9, eos_token_id=[0])
    reading = FAMILY.read_config(changed)
    assert reading.config == FAMILY.read_config(source).config
    assert [note.split()[0] for note in reading.notes] == ["encoder_layerdrop", "num_hidden_layers"]


def test_flags_may_say_what_the_file_leaves_open(opus):
    _, source = opus
    flags = {"unk_id": 5, "bos_id": 4, "hidden_dim": 15}
    config = FAMILY.read_config(type(source)(source.tensors, source.settings, flags)).config
    assert (config.unk_id, config.bos_id) == (5, 4)
    wrong = type(source)(source.tensors, source.settings, {"hidden_dim": 16, "dropout": 0.5})
    message = fault_of(FAMILY.read_config, wrong)
    says(message, "hidden_dim", "given as 16", 15)
    says(message, "dropout")


@pytest.mark.parametrize("name", [n for names in ACTIVATIONS.values() for n in names])
def test_activation_names_mean_the_same_function(name):
    """The library's function of that name, against the one of ours that it stands for."""
    from transformers.activations import ACT2FN

    from torch_transformer.layers import ACTIVATIONS as FUNCTIONS

    settings = MARIAN | {"activation_function": name}
    ours = FAMILY.read_config(settings_only(**settings)).config.activation
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    with in_float64():
        assert torch.abs(FUNCTIONS[ours](x) - ACT2FN[name](x)).max() < 1e-14


def test_damaged_tensors_are_named(opus):
    assert_damage_is_named(FAMILY, opus[1], "model.decoder.layers.1.encoder_attn.q_proj.weight")
    assert_damage_is_named(FAMILY, opus[1], "model.encoder.layers.0.fc1.weight")


def test_a_trained_output_bias_comes_back(opus):
    _, source = opus
    config, canonical = import_source(FAMILY, source)
    canonical["decoder.finalFc.bias"] = trained = np.arange(29.0)
    back = export_source(FAMILY, config, canonical, source)
    assert np.array_equal(back["final_logits_bias"], trained[None])


def test_settings_of_ours_that_marian_has_not():
    wrong = {
        "norm_position": "pre",
        "final_norm": True,
        "embedding_norm": True,
        "norm_epsilon": 1e-6,
        "encoder_positions": "none",
        "sinusoid_layout": "interleaved",
        "position_offset": 2,
        "positions_skip_padding": True,
        "attention_scale": 1.0,
        "embedding_scale": 3.0,
        "attention_bias": False,
        "ffn_bias": False,
    }
    config = our_config(FAMILY, **wrong)
    for call in (FAMILY.written, lambda c: FAMILY.write_settings(c, None)):
        message = fault_of(call, config)
        assert all(f"{name} is" in message for name in wrong)
        assert message.count("\n") == len(wrong)


def test_changed_settings_are_written_over_the_original():
    config = FAMILY.read_config(settings_only(**MARIAN)).config
    changed = type(config)(**{**config.to_dict(), "dropout": 0.3, "max_length": 100})
    expected = MARIAN | {"dropout": 0.3, "max_position_embeddings": 100}
    assert FAMILY.write_settings(changed, MARIAN) == expected
    other = FAMILY.write_settings(changed, MARIAN | {"model_type": "bart"})
    assert other["model_type"] == "marian" and "num_beams" not in other


def test_the_library_computes_the_same_positions():
    with in_float64():
        table = MarianSinusoidalPositionalEmbedding(13, 15).create_weight()
    ours = sinusoid_table(our_config(FAMILY), np.float64)
    assert np.abs(ours - table.numpy()).max() < 1e-14
