"""The config checks itself, all faults in one message, and survives its file."""

import dataclasses
import json

import pytest
from messages import says

from parity.twins.cases import FIELDS, config_of, pairwise_configs
from transformer_spec import ConfigError, TransformerConfig


def test_all_faults_are_named_in_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        TransformerConfig(7, 3, 100, 13, 8, 2, 2, 17, dropout=2.0, activation="swish")
    says(caught.value, "hidden_dim 100", "divisible", "num_heads 8")
    says(caught.value, "dropout", "2.0", "too large")
    says(caught.value, "activation", "'swish'", "relu, gelu")
    says(caught.value, "eos_id 3", "target vocabulary of 3")


@pytest.mark.parametrize(
    ("field", "value", "parts"),
    [
        ("hidden_dim", "15", ("hidden_dim", "'15'", "whole number")),
        ("max_length", True, ("max_length", "True", "whole number")),
        ("num_heads", 0, ("num_heads", 0, "too small", "at least 1")),
        ("norm_epsilon", 0.0, ("norm_epsilon", "0.0", "too small", "above 0")),
        ("attention_scale", float("nan"), ("attention_scale", "nan")),
        ("pad_id", 3, ("pad_id", "eos_id", 3)),
        ("bos_id", 99, ("bos_id 99", "target vocabulary")),
        ("tied_embeddings", "all", ("source_vocab_size 23", "target_vocab_size 19")),
        ("tied_embeddings", "source_target", ("'source_target'", "source_vocab_size 23")),
        ("norm", "rmsnorm", ("norm", "'rmsnorm'", "layer, rms")),
        ("head_dim", 0, ("head_dim", 0, "too small")),
        ("relative_buckets", 2, ("relative_buckets", 2, "too small", "at least 4")),
    ],
)
def test_a_faulty_field_is_named(field: str, value: object, parts: tuple[object, ...]) -> None:
    values = config_of({}).to_dict() | {field: value}
    with pytest.raises(ConfigError, match="invalid TransformerConfig") as caught:
        TransformerConfig(**values)
    says(caught.value, *parts)


def test_a_frequency_that_would_divide_by_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs hidden_dim >= 4, not 3"):
        TransformerConfig(9, 9, 3, 5, 1, 1, 1, 7, sinusoid_frequency="i/(d/2-1)")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder_positions": "relative", "relative_buckets": 7}, "relative_buckets 7 is odd"),
        (
            {"encoder_positions": "relative", "relative_max_distance": 8},
            "relative_max_distance 8 is not above 8.*the encoder",
        ),
        (
            {"decoder_positions": "relative", "relative_max_distance": 16},
            "relative_max_distance 16 is not above 16.*the decoder",
        ),
    ],
)
def test_buckets_that_have_no_logarithm_are_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(values)
    config_of(values | {"encoder_positions": "none", "decoder_positions": "none"})


def test_heads_may_be_of_any_width_that_is_given() -> None:
    with pytest.raises(ConfigError, match="hidden_dim 15 is not divisible by num_heads 4"):
        config_of({"num_heads": 4})
    config = config_of({"num_heads": 4, "head_dim": 5})
    assert config.heads_dim == 20
    assert config.attention_scale == pytest.approx(5**-0.5, abs=0)


def test_a_file_has_no_fields_that_its_model_has_no_use_for(tmp_path) -> None:
    """What programs before these fields wrote and read is what is written."""
    config_of({"head_dim": 5}).save(tmp_path / "config.json")
    written = json.loads((tmp_path / "config.json").read_text())["model"]
    fields = [field.name for field in dataclasses.fields(TransformerConfig)]
    assert list(written) == fields[: fields.index("head_dim")]
    config_of({"head_dim": 4, "output_scale": 0.5}).save(tmp_path / "config.json")
    more = json.loads((tmp_path / "config.json").read_text())["model"]
    assert more == written | {"head_dim": 4, "attention_scale": 0.5, "output_scale": 0.5}


def test_derived_defaults() -> None:
    config = config_of({"norm_position": "pre"})
    assert config.final_norm is True
    assert config_of({}).final_norm is False
    assert config.embedding_scale == pytest.approx(15**0.5, abs=0)
    assert config.attention_scale == pytest.approx(5**-0.5, abs=0)
    assert config.decoder_start_id == config.bos_id == 2


def test_every_field_has_a_meaning_and_is_varied_by_the_parity_tests() -> None:
    fields = {field.name for field in dataclasses.fields(TransformerConfig)}
    assert all(field.metadata["help"] for field in dataclasses.fields(TransformerConfig))
    fixed = {"source_vocab_size", "target_vocab_size", "hidden_dim", "inner_dim", "max_length"}
    assert fields - set(FIELDS) - fixed == {"pad_id", "unk_id", "bos_id", "eos_id"}


def test_file_round_trip(tmp_path) -> None:
    for config in pairwise_configs():
        config.save(tmp_path / "config.json")
        assert TransformerConfig.load(tmp_path / "config.json") == config


def test_tied_weights_are_listed_in_the_file(tmp_path) -> None:
    config_of({"tied_embeddings": "target_output"}).save(tmp_path / "config.json")
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["tied_weights"] == {"decoder.finalFc.weight": "decoder.embedding.weight"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["model"].update(colour=1), "unknown key 'colour'"),
        (lambda c: c["model"].pop("num_heads"), "missing key 'num_heads'"),
        (lambda c: c.update(format_version=99), "format_version 99; this program reads 1"),
        (lambda c: c.pop("model"), "no 'model' section"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, change, words: str) -> None:
    path = tmp_path / "config.json"
    config_of({}).save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="config") as caught:
        TransformerConfig.load(path)
    assert words in str(caught.value)


def test_a_missing_or_truncated_file(tmp_path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        TransformerConfig.load(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"format_version": 1, "mod')
    with pytest.raises(ConfigError, match="not readable JSON"):
        TransformerConfig.load(tmp_path / "config.json")


def test_more_layers_than_any_model_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_encoder_layers.*100000000.*10000"):
        config_of({"num_encoder_layers": 10**8})
