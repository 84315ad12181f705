"""What an OpenNMT-py checkpoint may say: every option is known, and every fault has a name."""

from dataclasses import replace

import numpy as np
import pytest
from messages import says

torch = pytest.importorskip("torch")

from family_checks import import_source, source_of  # noqa: E402
from opennmt_reference import EMBEDDING, Checkpoint  # noqa: E402

from convert.families.opennmt.family import OpenNMT  # noqa: E402
from convert.families.opennmt.options import ABSENT, CHECKED, ELSEWHERE, TEXT, TRAINING  # noqa: E402
from transformer_spec import UserError  # noqa: E402

FAMILY = OpenNMT()
UNSUPPORTED = {
    "encoder_type": "brnn",
    "decoder_type": "transformer_lm",
    "model_task": "lm",
    "data_task": "lm",
    "model_type": "img",
    "data_type": "audio",
    "self_attn_type": "average",
    "max_relative_positions": 16,
    "relative_positions_buckets": 32,
    "multiquery": True,
    "num_kv": 1,
    "sliding_window": 128,
    "layer_norm": "rms",
    "parallel_residual": True,
    "num_experts": 8,
    "generator_function": "sparsemax",
    "copy_attn": True,
    "coverage_attn": True,
    "context_gate": "both",
    "n_src_feats": 1,
    "src_feats_vocab": {"feat0": "file"},
    "lora_layers": ["linear_values"],
    "lora_embedding": True,
    "quant_layers": ["w_1"],
    "brnn": True,
    "pos_ffn_activation_fn": "gated-gelu",
    "position_encoding_type": "Learned",
}


def given(flags=None, tensors=None, **options):
    checkpoint = Checkpoint()
    settings = checkpoint.settings() | options
    return source_of(tensors or checkpoint.state(), settings, flags)


def message_of(source) -> str:
    with pytest.raises(UserError) as error:
        FAMILY.read_config(source)
    return str(error.value)


def test_the_options_of_a_whole_checkpoint_are_known():
    source = given()
    assert len(source.settings) > 260
    FAMILY.read_config(source)


def test_an_option_belongs_to_one_set():
    sets = [set(CHECKED), TRAINING, TEXT, ABSENT, ELSEWHERE]
    assert sum(map(len, sets)) == len(set().union(*sets))


def test_every_unsupported_option_is_named_at_once():
    message = message_of(given(**UNSUPPORTED))
    for name, value in UNSUPPORTED.items():
        assert f"{name} is {value!r}; only" in message
    assert set(CHECKED) < set(UNSUPPORTED)


@pytest.mark.parametrize("name", ["max_relative_positions"])
@pytest.mark.parametrize("kind", [-1, -2])
def test_rotary_and_alibi_positions_are_refused(name, kind):
    assert f"{name} is {kind}; only 0" in message_of(given(**{name: kind}))


@pytest.mark.parametrize("activation", ["silu", "gated-gelu"])
def test_gated_activations_are_refused_and_so_is_their_matrix(activation):
    state = Checkpoint().state()
    state["encoder.transformer.0.feed_forward.w_3.weight"] = torch.ones(7, 18)
    assert activation in message_of(given(pos_ffn_activation_fn=activation))
    with pytest.raises(UserError, match=r"extra 'encoder.transformer.0.feed_forward.w_3.weight'"):
        import_source(FAMILY, given(tensors=state))


def test_an_option_of_another_version_is_refused():
    assert "swap_layers = 2 is not known" in message_of(given(swap_layers=2))


def test_options_that_the_tensors_contradict_are_named_at_once():
    wrong = {
        "hidden_size": 20,
        "src_word_vec_size": 18,
        "word_vec_size": 10,
        "transformer_ff": 8,
        "enc_layers": 4,
        "layers": 5,
        "add_qkvbias": True,
    }
    message = message_of(given(**wrong))
    says(message, "hidden_size", 20, "tensors show 18")
    says(message, "word_vec_size", 10, "tensors show 18")
    says(message, "transformer_ff", 8, "tensors show 7")
    says(message, "layers", 5, "tensors show 3")
    says(message, "layers", 5, "tensors show 2")
    says(message, "add_qkvbias", "True", "attention biases")
    state = {n: a for n, a in Checkpoint().state().items() if not n.endswith("w_1.bias")}
    assert "add_ffnbias is True" in message_of(given(tensors=state))


def test_values_of_another_kind_are_named():
    message = message_of(given(dropout=[], attention_dropout=["x"], norm_eps=None, heads=None))
    for part in ("dropout is []; it must be", "attention_dropout is 'x'", "norm_eps is None"):
        assert part in message
    assert "heads is missing" in message


def test_settings_that_are_not_there():
    source = replace(given(), settings=None)
    message = message_of(source)
    for part in ("options are missing", "heads is missing", "position_encoding is missing"):
        assert part in message
    for name in ("pad_id", "unk_id", "bos_id", "eos_id"):
        says(message, name, "not given", "vocabulary")


def test_without_a_vocabulary_the_special_tokens_are_given():
    ids = {"pad_id": 1, "unk_id": 0, "bos_id": 2, "eos_id": 3}
    assert FAMILY.read_config(given(ids, vocab=None)).config.decoder_start_id == 2
    other = message_of(given(ids, vocab=None, decoder_start_token="</s>"))
    says(other, "decoder_start_id", "not given", "</s>")
    started = FAMILY.read_config(given(decoder_start_token="</s>")).config
    assert (started.bos_id, started.decoder_start_id) == (2, 3)


def test_vocabularies_that_do_not_fit():
    words = Checkpoint().vocab()
    short = words | {"src": words["src"][:-1], "src_feats": [["a"]]}
    message = message_of(given(vocab=short))
    says(message, "source_vocab_size", 17, "16 words")
    assert "source features" in message
    swapped = words | {"src": ["<blank>", "<unk>", *words["src"][2:]]}
    message = message_of(given(vocab=swapped))
    says(message, "<blank>", "0 of the source", "1 of the target")
    unpadded = words | {"src": ["<unk>", "w", *words["src"][2:]]}
    says(message_of(given(vocab=unpadded)), "<blank>", "none of the source")


def test_flags_that_contradict_the_checkpoint():
    message = message_of(given({"pad_id": 0, "norm_epsilon": 1e-5, "max_length": 51}))
    says(message, "pad_id", "given as 0", 1)
    says(message, "norm_epsilon", "given as 1e-05", 1e-6)
    says(message, "max_length", "given as 51", 50)
    shorter = FAMILY.read_config(given({"max_length": 40, "output_bias": "frozen"})).config
    assert (shorter.max_length, shorter.output_bias) == (40, "frozen")


def test_the_longest_sequence_is_asked_for_where_nothing_shows_it():
    state = {n: a for n, a in Checkpoint().state().items() if not n.endswith("pe.pe")}
    assert "max_length is not given" in message_of(given(tensors=state))
    assert FAMILY.read_config(given({"max_length": 9}, state)).config.max_length == 9


def test_training_and_text_options_are_said_in_one_note_each():
    options = {"optim": "adam", "label_smoothing": 0.1, "transforms": ["sentencepiece"]}
    notes = FAMILY.read_config(given(**options)).notes
    (training,) = [note for note in notes if note.startswith("used in training only")]
    assert "label_smoothing 0.1" in training and "optim 'adam'" in training
    assert "freeze" not in training and "accum" not in training
    (text,) = [note for note in notes if note.startswith("text is prepared outside")]
    assert "transforms ['sentencepiece']" in text


def test_missing_extra_and_misshapen_tensors_are_named():
    state = Checkpoint().state() | {"encoder.version": torch.ones(1)}
    del state["decoder.transformer_layers.1.context_attn.final_linear.weight"]
    state["decoder.layer_norm.bias"] = torch.ones(17)
    with pytest.raises(UserError) as error:
        import_source(FAMILY, given(tensors=state))
    message = str(error.value)
    name = "decoder.transformer_layers.1.context_attn.final_linear.weight"
    says(message, "missing", f"'{name}'", "expected float [18, 18]")
    assert "extra 'encoder.version'" in message
    says(message, "shape", "'decoder.layer_norm.bias'", "float32 [17]", "expected float [18]")


def test_a_missing_table_is_named():
    state = Checkpoint().state()
    name = f"decoder.{EMBEDDING}.emb_luts.0.weight"
    del state[name]
    assert f"the matrix {name} is missing" in message_of(given(tensors=state))


def test_it_is_not_written():
    config = FAMILY.read_config(given()).config
    for write in (lambda: FAMILY.written(config), lambda: FAMILY.write_settings(config, None)):
        with pytest.raises(NotImplementedError, match="opennmt is not written"):
            write()


def test_other_models_are_not_recognized():
    names = [f"encoder.{EMBEDDING}.emb_luts.0.weight", "encoder.transformer.0.layer_norm.weight"]
    assert not FAMILY.recognizes(source_of({name: np.ones(1) for name in names}))


def test_one_table_of_both_halves_must_be_one():
    checkpoint = Checkpoint(source_words=19, options={"share_embeddings": True})
    state, name = checkpoint.state(), f"decoder.{EMBEDDING}.emb_luts.0.weight"
    state[name] = state[name] + 1
    message = message_of(source_of(state, checkpoint.settings()))
    says(message, "share_embeddings is True", name, "should be one, and differ")
