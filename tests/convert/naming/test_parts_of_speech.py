"""Tables of names and parts of speech models: fcK without a bias, halves of two lengths."""

import dataclasses

import numpy as np
import pytest
from convert_cases import assert_same_arrays
from family_checks import export_source, import_source
from huggingface_cases import fault_of, our_weights

from convert.core.tensors import Held
from convert.families.base import Source
from convert.families.registry import TABLES
from transformer_spec import TransformerConfig

SIZES = {
    "source_vocab_size": 29,
    "target_vocab_size": 31,
    "hidden_dim": 12,
    "inner_dim": 7,
    "num_heads": 3,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "max_length": 13,
}
FAMILY = TABLES["bentrevett-seq2seq"]


@pytest.fixture
def config() -> TransformerConfig:
    learned = dict.fromkeys(("encoder_positions", "decoder_positions"), "learned")
    scale = float(np.float32(12**0.5))
    return TransformerConfig(**SIZES, **learned, embedding_scale=scale)


def flags(config: TransformerConfig) -> dict:
    told = ("num_heads", "max_length", "pad_id", "unk_id", "bos_id", "eos_id", "decoder_start_id")
    return {name: getattr(config, name) for name in told}


def test_they_are_refused_by_name(config):
    assert FAMILY.write_settings(config, None)
    short = dataclasses.replace(config, max_source_length=9)
    message = fault_of(FAMILY.write_settings, short, None)
    assert "max_source_length is 9; bentrevett-seq2seq has 13 only" in message
    keyless = dataclasses.replace(config, key_bias=False)
    message = fault_of(FAMILY.write_settings, keyless, None)
    assert "key_bias is False; bentrevett-seq2seq has True only" in message
    heard = {"feature_dim": 7, "source_vocab_size": 0}
    message = fault_of(FAMILY.write_settings, dataclasses.replace(config, **heard), None)
    assert "feature_dim is 7; bentrevett-seq2seq has 0 only" in message


def test_a_module_whose_keys_have_no_bias_comes_and_goes(config):
    """As its tensors show it; some of them without one are a fault."""
    keyless = dataclasses.replace(config, key_bias=False)
    weights = our_weights(keyless)
    arrays = export_source(FAMILY, keyless, weights)
    source = Source(Held(arrays), None, flags(config))
    read = FAMILY.read_config(source)
    assert read.config.attention_bias and not read.config.key_bias
    again, canonical = import_source(FAMILY, source)
    assert_same_arrays(canonical, weights)
    assert FAMILY.write_settings(again, read.settings)
    name = "encoder.layers.1.self_attention.fc_k"
    some = arrays | {f"{name}.bias": arrays[f"{name}.weight"][0]}
    message = fault_of(FAMILY.read_config, Source(Held(some), None, flags(config)))
    assert "attention_bias: 17 of 24 have a bias" in message
