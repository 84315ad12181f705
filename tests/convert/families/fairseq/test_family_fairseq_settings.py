"""fairseq's settings: mapped, refused by name, harmless, or said in a note; the version marks."""

import math
from dataclasses import replace

import numpy as np
import pytest
from messages import saying, says

pytest.importorskip("torch")
pytest.importorskip("jax")
pytest.importorskip("transformers")

import fairseq_cases as cases  # noqa: E402
from family_checks import assert_round_trip, export_source, import_source, source_of  # noqa: E402

from convert.core.rules import ASIDE  # noqa: E402
from convert.core.tensors import Announced  # noqa: E402
from convert.families.fairseq.family import Fairseq  # noqa: E402
from transformer_spec import UserError  # noqa: E402

FAMILY = Fairseq()
PRE = cases.m2m100()
STATE = cases.state_of(PRE, True)
SETTINGS = cases.settings_of(PRE)
NORMS = {f"{half}.layer_norm.{leaf}" for half in cases.HALVES for leaf in ("weight", "bias")}


def source(state=None, flags=None, without=(), **settings):
    arrays = STATE if state is None else state
    found = {name: value for name, value in (SETTINGS | settings).items() if name not in without}
    return source_of(arrays, found, flags)


def config_of(state=None, flags=None, without=(), **settings):
    return FAMILY.read_config(source(state, flags, without, **settings)).config


def marked(encoder=None, decoder=None, norms=True) -> dict:
    """The state with other version marks, or none; with or without its final norms."""
    state = {name: array for name, array in STATE.items() if not name.endswith(".version")}
    marks = {"encoder.version": encoder, "decoder.version": decoder}
    state |= {name: np.array([mark], np.float32) for name, mark in marks.items() if mark}
    return state if norms else {n: a for n, a in state.items() if n not in NORMS}


class TestFields:
    def test_of_a_pre_norm_model(self):
        config = config_of()
        assert (config.hidden_dim, config.inner_dim, config.num_heads) == (15, 11, 3)
        assert (config.num_encoder_layers, config.num_decoder_layers) == (2, 3)
        assert (config.source_vocab_size, config.max_length) == (19, cases.LENGTH)
        assert (config.norm_position, config.final_norm) == ("pre", True)
        assert config.embedding_scale == math.sqrt(15)
        assert (config.bos_id, config.pad_id, config.eos_id, config.unk_id) == (0, 1, 2, 3)
        assert config.decoder_start_id == config.eos_id
        assert (config.position_offset, config.positions_skip_padding) == (2, True)
        assert (config.output_bias, config.norm_epsilon) == ("none", 1e-5)

    def test_dropouts(self):
        config = config_of()
        rates = (config.dropout, config.attention_dropout, config.activation_dropout)
        assert rates == (0.3, 0.2, 0.1)
        assert config_of(activation_dropout=0.0, relu_dropout=0.4).activation_dropout == 0.4
        bare = config_of(without=("dropout", "attention_dropout", "activation_dropout"))
        assert (bare.dropout, bare.attention_dropout, bare.activation_dropout) == (0.1, 0.0, 0.0)

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [("relu", "relu"), ("gelu", "gelu"), ("gelu_fast", "gelu_tanh"), ("swish", "silu"),
         ("gelu_accurate", "gelu_tanh"), ("linear", "identity")],
    )  # fmt: skip
    def test_activations(self, theirs, ours):
        assert config_of(activation_fn=theirs).activation == ours

    def test_settings_of_2018_lack_what_came_later(self):
        later = ("activation_fn", "no_scale_embedding", "layernorm_embedding", "activation_dropout",
                 "no_decoder_final_norm", "base_layers", "quant_noise_pq", "_name", "char_inputs",
                 "cross_self_attention", "encoder_layers_to_keep", "no_cross_attention",
                 "max_source_positions", "decoder_input_dim", "decoder_output_dim")  # fmt: skip
        config = config_of(without=later, max_sentences=None, raw_text=False, momentum=0.99)
        assert (config.activation, config.max_length) == ("relu", 1024)

    def test_settings_in_groups(self):
        groups = {half: {} for half in cases.HALVES}
        flat = {}
        for name, value in SETTINGS.items():
            half, _, rest = name.partition("_")
            groups.get(half, flat)[rest if half in groups else name] = value
        flat |= {"quant_noise": {"pq": 0.0, "pq_block_size": 8, "scalar": 0.0}}
        flat = {name: value for name, value in flat.items() if not name.startswith("quant_noise_")}
        groups["decoder"]["input_dim"] = "${model.decoder.embed_dim}"
        grouped = source_of(STATE, flat | groups)
        assert FAMILY.recognizes(grouped)
        assert FAMILY.read_config(grouped).config == config_of()

    @pytest.mark.parametrize("change", ["no_scale_embedding", "no_token_positional_embeddings"])
    def test_settings_that_are_1_and_0_for_true_and_false(self, change):
        told = {n: value for n, value in SETTINGS.items() if isinstance(value, bool)}
        told |= {change: True}
        config = config_of(**{name: int(value) for name, value in told.items()})
        assert config == config_of(**told) != config_of()

    def test_lengths_of_both_sides(self):
        given = source(max_source_positions=16, max_target_positions=20)
        reading = FAMILY.read_config(given)
        assert reading.config.max_length == 20
        assert "max_length is the longest of" in reading.notes[0]

    def test_an_architecture_of_ones_own(self):
        given = source(arch="my_mid_transformer_12e3d")
        reading = FAMILY.read_config(given)
        assert reading.config == config_of()
        (note,) = set(reading.notes) - set(FAMILY.read_config(source()).notes)
        assert "arch 'my_mid_transformer_12e3d' is none of fairseq's" in note

    def test_settings_of_the_branch_that_trained_nllb(self):
        more = {"add_data_source_prefix_tags": True, "mixed_multitask_denoising_prob": 0.5}
        assert config_of(**more, arch="transformer_12_12", layernorm_extra=True) == config_of()

    def test_settings_of_a_plugin_are_passed_over_where_that_is_asked(self):
        given = source(my_plugins_rate=3)
        with pytest.raises(UserError, check=saying("--ignore-setting my_plugins_rate")):
            FAMILY.read_config(given)
        reading = FAMILY.read_config(replace(given, ignored=["my_plugins_rate"]))
        assert reading.config == config_of()
        assert "my_plugins_rate = 3 is ignored, as --ignore-setting says" in reading.notes

    def test_flags(self):
        flags = {"max_length": 40, "decoder_start_id": 5}
        config = config_of(flags=flags)
        assert (config.max_length, config.decoder_start_id) == (40, 5)
        with pytest.raises(UserError, check=saying("pad_id", "given as 0", 1)):
            config_of(flags={"pad_id": 0})


class TestRefusals:
    def test_every_unsupported_setting_is_named_at_once(self):
        wrong = {
            "activation_fn": "tanh",
            "adaptive_input": True,
            "adaptive_softmax_cutoff": "100,200",
            "arch": "fconv_iwslt_de_en",
            "base_layers": 1,
            "char_inputs": True,
            "cross_self_attention": True,
            "decoder_input_dim": 8,
            "decoder_output_dim": 8,
            "decoder_layers_to_keep": "0,1",
            "encoder_layers_to_keep": "0,1",
            "encoder_xformers_att_config": "{}",
            "layer_wise_attention": True,
            "layernorm_embedding": "yes",
            "moe_freq": 2,
            "no_cross_attention": True,
            "no_decoder_final_norm": True,
            "quant_noise_pq": 0.1,
            "quant_noise_scalar": 0.5,
            "scale_attn": True,
            "share_encoders": True,
            "decoder_embed_dim": 16,
            "decoder_ffn_embed_dim": 16,
            "decoder_attention_heads": 5,
            "decoder_normalize_before": False,
            "a_plugin_s_setting": 3,
        }
        with pytest.raises(UserError) as error:
            config_of(**wrong)
        assert f"{len(wrong)} faults" in str(error.value)
        for name, value in wrong.items():
            assert f"{name} " in str(error.value), name
            assert repr(value) in str(error.value), name

    @pytest.mark.parametrize(
        "name", ["encoder_embed_dim", "encoder_layers", "decoder_attention_heads"]
    )
    def test_settings_that_must_be_there(self, name):
        with pytest.raises(UserError, match=f"{name} is missing"):
            config_of(without=(name,))

    def test_a_language_model(self):
        with pytest.raises(UserError, match="arch is 'transformer_lm_gpt'"):
            config_of(arch="transformer_lm_gpt")

    def test_no_settings(self):
        with pytest.raises(UserError, match="has no settings"):
            FAMILY.read_config(source_of(STATE))
        assert not FAMILY.recognizes(source_of(STATE))

    def test_learned_positions_of_two_lengths(self):
        lengths = {"max_source_positions": 16, "max_target_positions": 20}
        learned = {f"{half}_learned_pos": True for half in cases.HALVES}
        with pytest.raises(UserError, match="max_source_positions 16 and max_target_positions 20"):
            config_of(**lengths, **learned)
        assert config_of(**lengths, decoder_learned_pos=True).max_length == 20

    def test_a_length_that_is_no_number(self):
        with pytest.raises(UserError, check=saying("max_source_positions", "[16, 16]")):
            config_of(max_source_positions=[16, 16])

    def test_learned_positions_have_the_length_of_their_table(self):
        with pytest.raises(UserError, check=saying("max_length", "given as 40", 16)):
            config_of(flags={"max_length": 40}, encoder_learned_pos=True)

    def test_no_tables(self):
        state = {n: a for n, a in STATE.items() if "embed_tokens" not in n}
        with pytest.raises(UserError, match="encoder.embed_tokens.weight is no table"):
            config_of(state)


class TestNotes:
    def test_what_only_training_knows(self):
        given = source(encoder_layerdrop=0.1, lang_tok_replacing_bos_eos=True)
        layerdrop, language = FAMILY.read_config(given).notes
        says([layerdrop], "encoder_layerdrop", 0.1, "in training only")
        assert "--decoder-start-id" in language

    def test_usual_settings_need_none(self):
        assert FAMILY.read_config(source()).notes == []


class TestVersions:
    """The final norms of a pre-norm model depend on a mark that tools like to strip."""

    @pytest.mark.parametrize("marks", [(3, 3), (2, 3)])
    def test_marks_with_norms(self, marks):
        assert config_of(marked(*marks)).final_norm

    @pytest.mark.parametrize("marks", [(None, None), (1, 1), (1, 2)])
    def test_old_models_end_without_norms(self, marks):
        state = marked(*marks, norms=False)
        config, _ = import_source(FAMILY, source(state))
        assert not config.final_norm
        assert_round_trip(FAMILY, source(state))

    @pytest.mark.parametrize("marks", [(None, None), (1, 2)])
    def test_norms_with_a_mark_that_takes_them_out(self, marks):
        with pytest.raises(UserError) as error:
            config_of(marked(*marks))
        for half in cases.HALVES:
            assert f"{half}.version is missing or below" in str(error.value)
            assert f"{half}.layer_norm.weight is there" in str(error.value)
        assert "--final-norm" in str(error.value) and "--no-final-norm" in str(error.value)

    def test_a_flag_decides_for_the_norms(self):
        given = source(marked(), {"final_norm": True})
        config, canonical = import_source(FAMILY, given)
        assert config.final_norm
        expected = STATE["encoder.layer_norm.bias"]
        assert np.array_equal(canonical["encoder.final_norm.bias"], expected)
        assert_round_trip(FAMILY, given)

    def test_a_flag_decides_against_the_norms(self):
        given = source(marked(), {"final_norm": False})
        config, canonical = import_source(FAMILY, given)
        assert not config.final_norm
        assert {ASIDE + name for name in NORMS} <= canonical.keys()
        assert_round_trip(FAMILY, given)

    def test_one_half_alone(self):
        state = marked(3, 2)
        del state["decoder.layer_norm.weight"], state["decoder.layer_norm.bias"]
        with pytest.raises(UserError, check=saying("only the encoder", "norm")):
            config_of(state)

    def test_norms_that_the_mark_promises(self):
        with pytest.raises(UserError, match="missing 'encoder.layer_norm.weight'"):
            import_source(FAMILY, source(marked(3, 3, norms=False)))

    def test_a_mark_of_another_shape(self):
        state = STATE | {"encoder.version": np.array([3, 3], np.float32)}
        with pytest.raises(UserError, match="encoder.version is no single number"):
            config_of(state)

    def test_the_way_back_reads_no_tensor(self):
        given = source()
        config, canonical = import_source(FAMILY, given)
        names = source_of(STATE, SETTINGS)
        like = type(names)(Announced("fairseq", dict(given.tensors)), SETTINGS)
        back = export_source(FAMILY, config, canonical, like)
        assert back.keys() == STATE.keys()
