"""T5, mT5 and UMT5 checkpoints against their classes in float64, and the way back."""

import dataclasses

import numpy as np
import pytest
from convert_cases import convert
from family_checks import (
    assert_round_trip,
    assert_same_logits,
    export_source,
    import_source,
    twin_logits,
)
from family_table import LOGIT_BOUND
from huggingface_cases import (
    assert_damage_is_named,
    fault_of,
    loaded,
    our_weights,
    saved,
    shapes,
    with_settings,
    with_tensors,
)
from t5_cases import CLASSES, SCALED, batch, build, our_t5, saved_t5, t5_logits, used_scale

from convert.conversion.conversion import check_stated
from convert.families.registry import FAMILIES, recognize
from convert.formats.safetensors import open_safetensors
from parity.twins.cases import FIELDS
from transformer_spec import UserError, weight_shapes

V4 = {"transformers_version": "4.57.6", "scale_decoder_outputs": None}
# (class, output of its own, what the config was made with, settings as written): factor
CASES = {
    "first T5": ("t5", False, {}, {}, SCALED),
    "first T5, version 4": ("t5", False, {}, V4 | {"tie_word_embeddings": None}, SCALED),
    "T5 1.1": (
        "t5",
        True,
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {},
        1,
    ),
    "UL2, version 4": (
        "t5",
        True,
        {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False},
        V4 | {"tie_word_embeddings": False},
        1,
    ),
    "MADLAD": (
        "t5",
        True,
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        | {"pad_token_id": 1, "eos_token_id": 2},
        {},
        1,
    ),
    "mT5": ("mt5", True, {}, {}, 1),
    "tied mT5, version 4": ("mt5", False, {}, V4 | {"tie_word_embeddings": True}, SCALED),
    "UMT5, version 4": ("umt5", True, {}, V4 | {"tie_word_embeddings": False}, 1),
    "tied UMT5": ("umt5", False, {"num_decoder_layers": 1}, {}, SCALED),
}


@pytest.mark.sampled(5)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
def test_same_logits_and_back(case, tmp_path):
    kind, own, made, settings, factor = CASES[case]
    model = build(kind, own, **made)
    source, family = saved_t5(model, tmp_path, **settings), FAMILIES[kind]
    assert recognize(source) is family
    config, canonical = import_source(family, source)
    assert config.tied_embeddings == ("source_target" if own else "all")
    assert config.output_scale == factor and config.head_dim == 5
    ids = batch()
    ids[0][ids[0] == 0] = ids[1][:, 1:][ids[1][:, 1:] == 0] = config.pad_id
    expected = t5_logits(model, *ids, output_scale=factor)
    assert_same_logits(family, config, canonical, *ids, expected)
    for logits in twin_logits(config, canonical, *ids):
        assert np.abs(logits - expected)[:, 0].max() <= LOGIT_BOUND
    assert_round_trip(family, source)
    assert family.write_settings(config, source.settings) == source.settings


OUTPUTS = [
    ("t5", "all", SCALED, {}),
    ("t5", "all", 1.0, {"gated_ffn": True, "activation": "gelu"}),
    ("t5", "source_target", SCALED, {"activation": "silu"}),
    ("t5", "none", 1.0, {"activation": "gelu_tanh", "unk_id": 3, "bos_id": 4}),
    ("mt5", "source_target", 1.0, {"dropout": 0.1}),
    ("mt5", "all", SCALED, {}),
    ("umt5", "source_target", 1.0, {}),
    ("umt5", "all", SCALED, {"num_encoder_layers": 1}),
]


@pytest.mark.sampled(4)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("kind", "ties", "factor", "changes"), OUTPUTS)
def test_a_model_of_ours_for_the_library(kind, ties, factor, changes, tmp_path):
    family = FAMILIES[kind]
    config = our_t5(kind, tied_embeddings=ties, output_scale=factor, **changes)
    weights = our_weights(config)
    settings = family.write_settings(config, None)
    arrays = export_source(family, config, weights)
    model = loaded(CLASSES[kind][1], arrays, settings, tmp_path / "ours")
    ids = batch()
    expected = t5_logits(model, *ids, output_scale=factor)
    assert_same_logits(family, config, weights, *ids, expected, "out")
    source = saved(model, tmp_path / "again")
    said = V4 | settings if factor != used_scale(model) else {}
    back, canonical = import_source(family, with_settings(source, **said))
    assert shapes(source.tensors).items() <= shapes(family.written(config).tensors).items()
    assert all(np.array_equal(canonical[name], weights[name]) for name in weight_shapes(back))
    assert {**back.to_dict(), "unk_id": 0} == {**config.to_dict(), "unk_id": 0}


def test_what_version_5_computes_wrongly_is_said():
    told = {kind: FAMILIES[kind].adapted(our_t5(kind, **OWN))[1] for kind in CLASSES}
    assert told["t5"] == told["mt5"] == []
    assert "transformers 5 computes umt5 with a factor 1/sqrt(D)" in told["umt5"][0]
    assert "without the factor" in FAMILIES["mt5"].adapted(our_t5("mt5"))[1][0]


OWN = {"tied_embeddings": "source_target", "output_scale": 1.0}


# Sinusoids are not computed; ties are said by bytes, and have a test of their own.
NOT_USED = ("sinusoid_layout", "sinusoid_frequency", "tied_embeddings")


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_what_the_class_has_not_is_refused_by_name(field):
    family, held = FAMILIES["t5"], our_t5("t5")
    for value in FIELDS[field]:
        try:
            config = dataclasses.replace(held, **{field: value})
        except UserError:
            continue  # no model of ours
        try:
            settings = family.write_settings(config, None)
        except UserError as error:
            assert field in str(error)
            continue
        if field not in NOT_USED:
            skeleton = dataclasses.replace(family.written(config), settings=settings)
            assert getattr(family.read_config(skeleton).config, field) == getattr(config, field)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return saved_t5(build("t5", False), tmp_path_factory.mktemp("t5"))


NAMES = ("shared", "encoder.embed_tokens", "decoder.embed_tokens")


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("own", [False, True])
def test_any_of_the_names_of_the_table(own, number, first):
    """Every non-empty subset of the three; equal bytes are asked for when they are read."""
    table = first.tensors.read("shared.weight")
    there = [name for bit, name in enumerate(NAMES) if number >> bit & 1]
    tables = {f"{name.replace('.', '__')}__weight": None for name in NAMES}
    tables |= {f"{name.replace('.', '__')}__weight": table for name in there}
    output = {"lm_head__weight": table[::-1].copy() if own else table}
    source = with_settings(with_tensors(first, **tables, **output), scale_decoder_outputs=False)
    config, canonical = import_source(FAMILIES["t5"], source)
    assert config.tied_embeddings == ("source_target" if own else "all")
    assert np.array_equal(canonical["encoder.embedding.weight"], table)
    assert_round_trip(FAMILIES["t5"], source)


def test_tables_of_halves_that_differ(first):
    table = first.tensors.read("shared.weight")
    apart = {"decoder__embed_tokens__weight": table * 2, "lm_head__weight": table * 3}
    source = with_tensors(first, **apart)
    config, canonical = import_source(FAMILIES["t5"], source)
    assert config.tied_embeddings == "none"
    assert np.array_equal(canonical["decoder.embedding.weight"], table * 2)
    assert_round_trip(FAMILIES["t5"], source)
    both = with_tensors(source, encoder__embed_tokens__weight=table * 4)
    assert "aside/shared.weight" in import_source(FAMILIES["t5"], both)[1]
    assert_round_trip(FAMILIES["t5"], both)
    for wrong in (with_settings(source, **V4), with_tensors(source, lm_head__weight=None)):
        message = fault_of(FAMILIES["t5"].read_config, wrong)
        assert "encoder and decoder differ: only version 5 of transformers" in message


def test_rows_of_another_number_than_the_settings_say(first):
    family = FAMILIES["t5"]
    message = fault_of(family.read_config, with_settings(first, vocab_size=32))
    assert "vocab_size is 32" in message and "31 in shared.weight" in message
    assert "give vocab_size its number there" in message
    longer = np.zeros((33, 13))
    mixed = with_settings(with_tensors(first, lm_head__weight=longer), scale_decoder_outputs=False)
    message = fault_of(family.read_config, mixed)
    assert "31 in shared.weight, 33 in lm_head.weight" in message
    assert "all of them must have one number of rows" in message


def test_dead_tensors_of_old_files(first):
    family = FAMILIES["t5"]
    dead = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    bias = "encoder.block.1.layer.0.layer_norm.bias"
    zeros = {dead.replace(".", "__"): np.ones((8, 3)), bias.replace(".", "__"): np.zeros(13)}
    source = with_tensors(first, **zeros)
    _, canonical = import_source(family, source)
    assert np.array_equal(canonical[f"aside/{dead}"], np.ones((8, 3)))
    assert not any("bias" in name for name in canonical if "relative" not in name)
    assert_round_trip(family, source)
    wrong = with_tensors(first, **{bias.replace(".", "__"): np.ones(13)})
    rules = family.rules(family.read_config(wrong).config, wrong)
    message = fault_of(check_stated, wrong.tensors, rules)
    assert bias in message and "norms of these models have no bias" in message


def test_damage_is_named(first):
    name = "decoder.block.2.layer.2.DenseReluDense.wo.weight"
    assert_damage_is_named(FAMILIES["t5"], first, name)


def test_a_table_in_every_block_is_not_t5_s(tmp_path):
    source = with_settings(
        saved_t5(build("umt5", False), tmp_path), model_type="t5", feed_forward_proj="gated-gelu"
    )
    assert "write model_type umt5" in fault_of(FAMILIES["t5"].read_config, source)
    other = with_settings(source, model_type="umt5")
    assert "model_type 'umt5'" in str(FAMILIES["t5"].contradiction(other))


@pytest.mark.parametrize("name", ["T5EncoderModel", "UMT5EncoderModel", None])
def test_an_encoder_alone_is_refused_in_one_sentence(name, first):
    gone = {n.replace(".", "__"): None for n in first.tensors if n.startswith("decoder")}
    source = with_settings(with_tensors(first, **gone), architectures=name and [name])
    message = fault_of(FAMILIES["t5"].read_config, source)
    assert "is an encoder without a decoder" in message and "\n" not in message
    assert (f"({name})" in message) == (name is not None)
    labels = with_settings(first, architectures=["T5ForSequenceClassification"])
    assert "puts labels on texts" in fault_of(FAMILIES["t5"].read_config, labels)


WRONG = {
    "d_kv": (None, "d_kv is missing"),
    "num_heads": (None, "num_heads is missing"),
    "pad_token_id": (None, "pad_token_id is None"),
    "relative_attention_num_buckets": (7, "relative_buckets 7 is odd"),
    "dense_act_fn": ("mish", "dense_act_fn is 'mish'"),
    "feed_forward_proj": ("gated-up-gelu", "it must be ACT or gated-ACT"),
    "scale_decoder_outputs": ("false", "scale_decoder_outputs is 'false'"),
    "hidden_size": (99, "hidden_size is 99 but d_model is 13"),
    "num_experts": (8, "num_experts = 8 is not known"),
    "quantization_config": ({}, "quantization_config is {}"),
}


def test_every_fault_of_the_settings_at_once(first):
    source = with_settings(first, **{key: value for key, (value, _) in WRONG.items()})
    message = fault_of(FAMILIES["t5"].read_config, source)
    hidden = {"relative_attention_num_buckets"}  # there is no config to judge
    assert all(told in message for key, (_, told) in WRONG.items() if key not in hidden)


def test_what_the_settings_leave_open(first):
    old = with_settings(first, **V4, dense_act_fn="gelu_new", feed_forward_proj="relu")
    gone = ("relative_attention_max_distance", "decoder_start_token_id", "num_decoder_layers")
    settings = {k: v for k, v in old.settings.items() if k not in gone} | {"num_layers": 3}
    reading = FAMILIES["t5"].read_config(dataclasses.replace(old, settings=settings))
    config = reading.config
    assert (config.relative_max_distance, config.decoder_start_id) == (128, 0)
    assert config.num_decoder_layers == 3
    assert (config.activation, config.gated_ffn) == ("gelu_tanh", False)
    assert config.max_length == 512 and "the class has no limit" in reading.notes[1]
    assert "decoding starts from pad_token_id 0" in reading.notes[0]
    longer = dataclasses.replace(old, settings=settings, flags={"max_length": 2000})
    assert FAMILIES["t5"].read_config(longer).config.max_length == 2000


def test_a_folder_of_two_number_formats_goes_there_and_back(tmp_path):
    """As the library saves a float16 model: every ``wo`` in float32."""
    model = build("t5", False).half()
    for name, parameter in model.named_parameters():
        if name.endswith("wo.weight"):
            parameter.data = parameter.data.float()
    model.save_pretrained(tmp_path / "t5")
    convert(tmp_path / "t5", tmp_path / "ours", "--to", "flax", "--container", "safetensors")
    convert(tmp_path / "ours", tmp_path / "back", "--to", "t5")
    before = open_safetensors(tmp_path / "t5/model.safetensors").read_all()
    after = open_safetensors(tmp_path / "back/model.safetensors").read_all()
    assert {str(array.dtype) for array in before.values()} == {"float16", "float32"}
    assert before.keys() == after.keys()
    assert all(before[n].dtype == after[n].dtype for n in before)
    assert all(before[n].tobytes() == after[n].tobytes() for n in before)
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "t5" / name).read_bytes() == (tmp_path / "back" / name).read_bytes()
