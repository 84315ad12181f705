"""Flax names of six models, made from their PyTorch classes; Flax left transformers 5.

The names below were compared once with files that the Flax classes of transformers 4.57.6 saved
(FlaxMarianMTModel, FlaxBart- and FlaxMBartForConditionalGeneration, tied and untied), and the
logits of those models in float64 with both twins': they agreed to 1e-14. Those of Pegasus and the
two Blenderbots follow the same modules, and were read in the code of 4.30, not in files.
"""

import numpy as np
import pytest
from family_checks import assert_same_logits, export_source, import_source
from flax_cases import CLASSES, flax_case, torch_name
from huggingface_cases import (
    TINY,
    assert_damage_is_named,
    assert_imported,
    fault_of,
    ids_of,
    library_logits,
    loaded,
    our_config,
    our_weights,
    settings_only,
    shapes,
    with_settings,
    with_tensors,
)

from convert.core.tensors import Held
from convert.families.base import Source
from convert.families.huggingface.flax import BartFlax, MarianFlax

# What the files of 4.57.6 hold outside the layers.
TOP = {
    "marian": {"final_logits_bias", "model.shared.embedding"},
    "bart": {"final_logits_bias", "model.shared.embedding"}
    | {f"model.{half}.embed_positions.embedding" for half in ("encoder", "decoder")}
    | {
        f"model.{half}.layernorm_embedding.{leaf}"
        for half in ("encoder", "decoder")
        for leaf in ("scale", "bias")
    },
}
TOP["mbart"] = TOP["bart"] | {
    f"model.{half}.layer_norm.{leaf}"
    for half in ("encoder", "decoder")
    for leaf in ("scale", "bias")
}
FINAL = {
    f"model.{half}.layer_norm.{leaf}"
    for half in ("encoder", "decoder")
    for leaf in ("scale", "bias")
}
TOP["blenderbot-small"] = TOP["bart"]
TOP["pegasus"] = TOP["marian"] | FINAL
TOP["blenderbot"] = {name for name in TOP["mbart"] if "layernorm_embedding" not in name}
# And in a layer of the decoder; an encoder's has no encoder_attn.
LAYER = {
    f"{module}.{leaf}"
    for module in (
        *(f"{a}.{p}_proj" for a in ("self_attn", "encoder_attn") for p in ("q", "k", "v", "out")),
        "fc1",
        "fc2",
    )
    for leaf in ("kernel", "bias")
} | {
    f"{norm}.{leaf}"
    for norm in ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm")
    for leaf in ("scale", "bias")
}


def expected_names(kind: str, tied: bool) -> set[str]:
    names = TOP[kind] | (set() if tied else {"lm_head.kernel"})
    for i in range(TINY["encoder_layers"]):
        names |= {f"model.encoder.layers.{i}.{n}" for n in LAYER if "encoder_attn" not in n}
    for i in range(TINY["decoder_layers"]):
        names |= {f"model.decoder.layers.{i}.{n}" for n in LAYER}
    return names


@pytest.fixture(scope="module", params=CLASSES)
def usual(request, tmp_path_factory):
    family = CLASSES[request.param][0]
    return family, flax_case(request.param, tmp_path_factory.mktemp(request.param))[1]


@pytest.mark.sampled(6)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", CLASSES)
def test_same_logits_and_back(kind, tied, tmp_path):
    model, source = flax_case(kind, tmp_path, tied, activation_function="gelu_new")
    assert set(source.tensors) == expected_names(kind, tied)
    family = CLASSES[kind][0]
    assert [f for f, *_ in CLASSES.values() if f.recognizes(source)] == [family]
    assert not family.family.recognizes(source)
    config = assert_imported(family, model, source)
    assert config.tied_embeddings == ("all" if tied else "none")
    assert shapes(family.written(config).tensors) == shapes(source.tensors)
    assert family.write_settings(config, source.settings) == source.settings


@pytest.mark.usefixtures("float64")
def test_opus_starts_from_padding(tmp_path):
    opus = {"pad_token_id": 28, "decoder_start_token_id": 28, "eos_token_id": 0, "d_model": 12}
    model, source = flax_case("marian", tmp_path, **opus, activation_function="swish")
    assert_imported(MarianFlax(), model, source)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("ties", ["all", "none"])
@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_of_ours_comes_back(kind, ties):
    family = CLASSES[kind][0]
    config = our_config(family.family, tied_embeddings=ties, output_bias="frozen")
    weights = our_weights(config)
    if ties == "none":
        weights["decoder.embedding.weight"] = weights["encoder.embedding.weight"]
    arrays = export_source(family, config, weights)
    source = Source(Held(arrays), family.write_settings(config, None))
    back, canonical = import_source(family, source)
    assert {**back.to_dict(), "unk_id": 1} == config.to_dict()
    assert all(np.array_equal(canonical[name], weights[name]) for name in weights)


@pytest.mark.sampled(6)
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("ties", ["all", "none"])
@pytest.mark.parametrize("kind", CLASSES)
def test_logits_of_a_model_of_ours(kind, ties, tmp_path):
    """What is written, put into the PyTorch class by this file's own reading of Flax names."""
    family, _, model_class = CLASSES[kind]
    config = our_config(family.family, tied_embeddings=ties, output_bias="frozen")
    weights = our_weights(config)
    if ties == "none":
        weights["decoder.embedding.weight"] = weights["encoder.embedding.weight"]
    arrays = export_source(family, config, weights)
    state = dict(torch_name(name, array) for name, array in arrays.items())
    for half in ("encoder", "decoder"):
        state[f"model.{half}.embed_tokens.weight"] = state["model.shared.weight"].copy()
    model = loaded(model_class, state, family.write_settings(config, None), tmp_path / "ours")
    ids = ids_of(config)
    expected = library_logits(model, *ids)
    assert_same_logits(family, config, weights, *ids, expected, "out")


def test_tables_that_flax_cannot_hold_apart():
    family = BartFlax()
    config = our_config(family.family, tied_embeddings="none")
    assert "differ" in fault_of(export_source, family, config, our_weights(config))
    wrong = {"tied_embeddings": "target_output", "activation": "identity", "norm_position": "pre"}
    for kind, (flax, *_) in CLASSES.items():
        config = our_config(flax.family, **wrong, target_vocab_size=31)
        message = fault_of(flax.written, config)
        assert "tied_embeddings is" in message and "activation is" in message
        assert "target_vocab_size 31 differ" in message
        assert ("norm_position is" in message) == (kind not in ("mbart", "pegasus", "blenderbot"))


def test_separate_vocabularies_are_refused(usual):
    family, source = usual
    separate = with_settings(source, share_encoder_decoder_embeddings=False, dropout=None)
    message = fault_of(family.read_config, separate)
    assert "share_encoder_decoder_embeddings is False" in message and "dropout is None" in message


def test_a_base_model_has_no_prefix(usual):
    family, source = usual
    arrays = source.tensors.read_all()
    del arrays["final_logits_bias"]
    base = {name.removeprefix("model."): array for name, array in arrays.items()}
    config, canonical = import_source(family, Source(Held(base), source.settings))
    assert config.output_bias == "none"
    assert export_source(family, config, canonical, Source(Held(base))).keys() == base.keys()


def test_damaged_tensors_are_named(usual):
    family, source = usual
    assert_damage_is_named(family, source, "model.decoder.layers.1.fc2.kernel")
    assert_damage_is_named(family, source, "model.shared.embedding")
    head = with_tensors(source, lm_head__kernel=np.zeros((15, 29)))
    assert "extra 'lm_head.kernel'" in fault_of(import_source, family, head)


def test_a_kernel_that_was_not_transposed_is_named(usual):
    family, source = usual
    name = "model.encoder.layers.0.fc1.kernel"
    turned = with_tensors(source, **{name.replace(".", "__"): source.tensors.read(name).T})
    assert f"wrong shape of '{name}'" in fault_of(import_source, family, turned)


def test_settings_are_those_of_the_pytorch_family(usual):
    family, source = usual
    settings = settings_only(**(dict(source.settings) | {"activation_function": "mish"}))
    assert "activation_function is 'mish'" in fault_of(family.read_config, settings)
    assert family.read_config(source).config == family.family.read_config(source).config


@pytest.mark.usefixtures("float64")
def test_a_swapped_square_kernel_is_seen(tmp_path):
    """The comparison itself: one square kernel transposed once too often changes the logits."""
    model, source = flax_case("bart", tmp_path)
    name = "model.encoder.layers.0.self_attn.q_proj.kernel"
    turned = with_tensors(source, **{name.replace(".", "__"): source.tensors.read(name).T.copy()})
    config, canonical = import_source(BartFlax(), turned)
    ids = ids_of(config)
    with pytest.raises(AssertionError):
        assert_same_logits(BartFlax(), config, canonical, *ids, library_logits(model, *ids))
