"""Models of ours in a torch.nn.Transformer, and what cannot be read or written, by name."""

from dataclasses import replace

import numpy as np
import pytest
from messages import saying, says

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from family_checks import (  # noqa: E402
    assert_same_logits,
    batch,
    export_source,
    import_source,
    source_of,
)
from torch import nn  # noqa: E402
from torch_nn_cases import (  # noqa: E402
    FAMILY,
    FLAGS,
    NAMES,
    PAD,
    Case,
    given,
    moved,
    without,
)

from transformer_spec import TransformerConfig, UserError, initial_weights  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor"),
]
OURS = TransformerConfig(
    source_vocab_size=11, target_vocab_size=13, hidden_dim=15, inner_dim=7, num_heads=3,
    num_encoder_layers=3, num_decoder_layers=2, max_length=20, pad_id=PAD, unk_id=0,
)  # fmt: skip
EXPORTS = {
    "post with final norms": (replace(OURS, final_norm=True), Case()),
    "pre, tied": (
        replace(OURS, norm_position="pre", final_norm=None, tied_embeddings="target_output",
                activation="gelu", norm_epsilon=1e-4),
        Case(True, "gelu", tied="target_output", layer_norm_eps=1e-4)),
    "learned, without biases": (
        replace(OURS, final_norm=True, source_vocab_size=13, tied_embeddings="all",
                encoder_positions="learned", decoder_positions="learned", embedding_norm=True,
                attention_bias=False, attention_output_bias=None, key_bias=None,
                ffn_bias=False,
                output_bias="none"),
        Case(bias=False, tied="all", positions="learned", embedding_norm=True, output_bias=False)),
}  # fmt: skip


def canonical_weights(config: TransformerConfig, norm_bias: bool) -> dict:
    """Random weights of ours, biases too, in float64."""
    draw = np.random.default_rng(3)
    weights = initial_weights(config, 0, np.float64)
    for name, array in weights.items():
        if array.ndim == 1 and (norm_bias or "ayerNorm" not in name and "final_norm" not in name):
            array += 0.3 * draw.normal(size=array.shape)
    return weights


@pytest.mark.parametrize(("config", "case"), EXPORTS.values(), ids=EXPORTS)
def test_a_model_of_ours_in_a_torch_transformer(config, case):
    canonical = canonical_weights(config, norm_bias=case.bias)
    state = export_source(FAMILY, config, canonical)
    module = case.module()
    names = module.state_dict()
    assert {n: a.shape for n, a in state.items()} == {n: tuple(a.shape) for n, a in names.items()}
    module.load_state_dict({n: torch.from_numpy(a) for n, a in state.items()})
    source_ids, target_ids = batch(config)
    expected = module(torch.from_numpy(source_ids), torch.from_numpy(target_ids)).numpy()
    assert_same_logits(FAMILY, config, canonical, source_ids, target_ids, expected, "out")
    written = FAMILY.written(config).tensors
    assert {written[name].dtype for name in written} == {np.dtype(np.float32)}


def test_export_under_the_users_names():
    config = replace(OURS, final_norm=True)
    state = Case().module().state_dict()
    written = FAMILY.written(config, NAMES)
    assert set(written.tensors) == set(moved(state))
    canonical = canonical_weights(config, True)
    again = import_source(
        FAMILY, source_of(export_source(FAMILY, config, canonical, written), None, FLAGS, NAMES)
    )
    assert again[0] == replace(config, attention_dropout=0.1, activation_dropout=0.1)
    assert all(np.array_equal(again[1][name], canonical[name]) for name in canonical)


@pytest.mark.parametrize(("config", "case"), EXPORTS.values(), ids=EXPORTS)
def test_settings_are_the_arguments_of_the_constructor(config, case):
    settings = FAMILY.write_settings(config, None)
    model = nn.Transformer(**settings["torch.nn.Transformer"])
    names = model.state_dict()
    wanted = {n for n in case.module().state_dict() if n.startswith("transformer.")}
    assert {f"transformer.{name}" for name in names} == wanted
    layer = model.decoder.layers[0]
    assert (layer.norm1.eps, layer.norm_first) == (case.layer_norm_eps, case.norm_first)
    assert settings["wrapper"]["embedding_scale"] == config.embedding_scale


def test_norm_biases_that_a_model_without_biases_cannot_hold():
    config = EXPORTS["learned, without biases"][0]
    with pytest.raises(UserError, check=saying("layerNorm1.bias", "bias=False")):
        export_source(FAMILY, config, canonical_weights(config, norm_bias=True))


def test_everything_that_cannot_be_written_is_named_at_once():
    config = replace(OURS, attention_scale=1.0, attention_bias=False, num_encoder_layers=0)
    with pytest.raises(UserError) as error:
        FAMILY.write_settings(config, None)
    for part in ("attention_scale is 1.0", "attention_bias is False", "num_encoder_layers is 0"):
        assert part in str(error.value)


def test_every_missing_setting_is_named_at_once():
    _, source = given(Case(), flags={}, wrapper={"decoder.finalFc": "generator", "middle": "x"})
    with pytest.raises(UserError) as error:
        FAMILY.read_config(source)
    for name in FLAGS:
        says(error.value, name, "not given")
    assert "nhead of nn.Transformer, which is 8" in str(error.value)
    assert "middle is not one of transformer" in str(error.value)


def test_settings_that_the_tensors_contradict_are_named_at_once():
    wrong = {"hidden_dim": 16, "inner_dim": 8, "num_encoder_layers": 2, "final_norm": False}
    wrong |= {"source_vocab_size": 10, "output_bias": "none", "encoder_positions": "learned"}
    _, source = given(Case(), flags=FLAGS | wrong)
    with pytest.raises(UserError) as error:
        FAMILY.read_config(source)
    for name in without(wrong, "encoder_positions"):
        says(error.value, name, f"given as {wrong[name]!r}", "tensors")
    assert "encoder_positions is learned: --map encoder.pos_embedding=NAME" in str(error.value)


def test_what_is_taken_without_being_given_is_said():
    _, source = given(Case(), flags=FLAGS)
    source = replace(source, settings={"epoch": 3})
    notes = " ".join(FAMILY.read_config(source).notes)
    assert "norm_epsilon 1e-05, dropout 0.1, sinusoid_layout 'interleaved'" in notes
    assert "not read: epoch" in notes
    frozen = FAMILY.read_config(replace(source, flags=FLAGS | {"output_bias": "frozen"})).config
    assert frozen.output_bias == "frozen" and frozen.attention_dropout == 0.1


def test_tensors_that_our_model_has_no_place_for():
    module, source = given(Case())
    name = "transformer.decoder.layers.1.multihead_attn.bias_k"
    extra = source_of(module.state_dict() | {name: torch.ones(1, 1, 15)}, flags=FLAGS)
    with pytest.raises(UserError, match=f"{name}: of add_bias_kv=True"):
        FAMILY.read_config(extra)
    half = without(module.state_dict(), "transformer.encoder.norm.weight")
    with pytest.raises(UserError, match="encoder.norm and transformer.decoder.norm: one is there"):
        FAMILY.read_config(source_of(half, flags=FLAGS))


def test_missing_extra_and_misshapen_tensors_are_named():
    state = Case().module().state_dict()
    gone = ("transformer.encoder.layers.2.norm1.bias", "transformer.decoder.layers.0.linear2.bias")
    state = without(state, *gone) | {"norm.scale": torch.ones(1, 20, 15)}
    state["transformer.encoder.layers.1.self_attn.in_proj_bias"] = torch.ones(44)
    with pytest.raises(UserError) as error:
        import_source(FAMILY, source_of(state, flags=FLAGS))
    message = str(error.value)
    assert all(f"missing '{name}'" in message for name in gone)
    assert "extra 'norm.scale'" in message and "float32 [44], expected float [45]" in message


def test_a_table_that_is_not_where_the_map_says():
    module, source = given(Case(), wrapper={"decoder.embedding": "words", "encoder": "nowhere"})
    with pytest.raises(UserError) as error:
        FAMILY.read_config(source)
    says(error.value, "decoder.embedding", "no tensor words.weight")
    assert "tgt_emb.weight [13, 15], generator.weight [13, 15])" in str(error.value)
    assert "encoder: no tensor begins with nowhere.layers." in str(error.value)


def test_other_models_are_not_recognized():
    fairseq = ["encoder.layers.0.self_attn.in_proj_weight", "encoder.layers.0.fc1.weight"]
    names = [*fairseq, "decoder.layers.0.encoder_attn.k_proj.weight", "layers.0.linear1.weight"]
    assert not FAMILY.recognizes(source_of({name: np.ones(1) for name in names}))
