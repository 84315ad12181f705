"""Published members: their config.json, with the keys of the files, and how many weights they have.

The numbers are those of the library's own modules, made without memory from the same settings.
"""

import math

import pytest
from huggingface_cases import settings_only
from t5_cases import CLASSES

from convert.families.registry import FAMILIES
from transformer_spec import weight_shapes

T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_kv": 64,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "task_specific_params": {"summarization": {"num_beams": 4, "prefix": "summarize: "}},
    "vocab_size": 32128,
}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
OF_11 = {k: v for k, v in T5.items() if k not in ("n_positions", "task_specific_params")} | GATED
FLAN = OF_11 | {
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "n_positions": 512,
    "relative_attention_max_distance": 128,
    "torch_dtype": "float32",
    "transformers_version": "4.23.1",
    "use_cache": True,
}
MT5 = OF_11 | {
    "architectures": ["MT5ForConditionalGeneration"],
    "model_type": "mt5",
    "tokenizer_class": "T5Tokenizer",
    "vocab_size": 250112,
}
BYT5 = OF_11 | {
    "gradient_checkpointing": False,
    "tokenizer_class": "ByT5Tokenizer",
    "use_cache": True,
    "vocab_size": 384,
}
UMT5 = MT5 | {
    "architectures": ["UMT5ForConditionalGeneration"],
    "classifier_dropout": 0.0,
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "model_type": "umt5",
    "relative_attention_max_distance": 128,
    "scalable_attention": True,
    "transformers_version": "4.31.0.dev0",
    "use_cache": True,
    "vocab_size": 256384,
}
MADLAD = FLAN | {
    "d_kv": 128,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "vocab_size": 256000,
}
UL2 = FLAN | {"d_kv": 256, "dense_act_fn": "silu", "feed_forward_proj": "gated-silu"}


def of_size(like, width, inner, heads, encoder, decoder=None, **more):
    layers = {"num_layers": encoder, "num_decoder_layers": decoder or encoder}
    return like | {"d_model": width, "d_ff": inner, "num_heads": heads} | layers | more


MEMBERS = {
    "t5-small": (of_size(T5, 512, 2048, 8, 6), 60_506_624),
    "t5-base": (of_size(T5, 768, 3072, 12, 12), 222_903_552),
    "t5-large": (of_size(T5, 1024, 4096, 16, 24), 737_668_096),
    "t5-3b": (of_size(T5, 1024, 16384, 32, 24, d_kv=128), 2_851_598_336),
    "t5-11b": (of_size(T5, 1024, 65536, 128, 24, d_kv=128), 11_307_321_344),
    "t5-v1_1-small": (of_size(OF_11, 512, 1024, 6, 8), 76_961_152),
    "t5-v1_1-base": (of_size(OF_11, 768, 2048, 12, 12), 247_577_856),
    "t5-v1_1-large": (of_size(OF_11, 1024, 2816, 16, 24), 783_150_080),
    "t5-v1_1-xl": (of_size(OF_11, 2048, 5120, 32, 24), 2_849_757_184),
    "t5-v1_1-xxl": (of_size(OF_11, 4096, 10240, 64, 24), 11_135_332_352),
    "flan-t5-small": (of_size(FLAN, 512, 1024, 6, 8), 76_961_152),
    "flan-t5-base": (of_size(FLAN, 768, 2048, 12, 12), 247_577_856),
    "mt5-small": (of_size(MT5, 512, 1024, 6, 8), 300_176_768),
    "mt5-base": (of_size(MT5, 768, 2048, 12, 12), 582_401_280),
    "mt5-large": (of_size(MT5, 1024, 2816, 16, 24), 1_229_581_312),
    "mt5-xl": (of_size(MT5, 2048, 5120, 32, 24), 3_742_619_648),
    "mt5-xxl and aya-101": (of_size(MT5, 4096, 10240, 64, 24), 12_921_057_280),
    "byt5-small": (of_size(BYT5, 1472, 3584, 6, 12, 4), 299_637_760),
    "byt5-base": (of_size(BYT5, 1536, 3968, 12, 18, 6), 581_653_248),
    "byt5-large": (of_size(BYT5, 1536, 3840, 16, 36, 12), 1_228_183_552),
    "byt5-xl": (of_size(BYT5, 2560, 6720, 32, 36, 12), 3_737_801_728),
    "byt5-xxl": (of_size(BYT5, 4672, 12352, 64, 36, 12), 12_906_899_328),
    "umt5-small": (of_size(UMT5, 512, 1024, 6, 8), 306_601_984),
    "umt5-base": (of_size(UMT5, 768, 2048, 12, 12), 592_043_520),
    "umt5-xxl": (of_size(UMT5, 4096, 10240, 64, 24), 12_972_531_712),
    "madlad400-3b-mt": (of_size(MADLAD, 1024, 8192, 16, 32), 2_940_374_016),
    "flan-ul2": (of_size(UL2, 4096, 16384, 16, 32), 19_591_209_984),
}
EXPECTED = {
    "t5-3b": {"head_dim": 128, "tied_embeddings": "all", "output_scale": 1024**-0.5},
    "t5-v1_1-small": {"gated_ffn": True, "activation": "gelu_tanh", "max_length": 512},
    "byt5-small": {"num_encoder_layers": 12, "num_decoder_layers": 4, "source_vocab_size": 384},
    "umt5-small": {"relative_per_layer": True, "output_scale": 1.0, "unk_id": 3},
    "madlad400-3b-mt": {"pad_id": 1, "eos_id": 2, "decoder_start_id": 0, "unk_id": 0},
    "flan-ul2": {"activation": "silu", "head_dim": 256, "tied_embeddings": "source_target"},
}


@pytest.mark.parametrize("name", MEMBERS)
def test_settings_and_number_of_weights(name):
    settings, number = MEMBERS[name]
    family = FAMILIES[settings["model_type"]]
    config = family.read_config(settings_only(**settings)).config
    assert sum(map(math.prod, weight_shapes(config).values())) == number
    expected = EXPECTED.get(name, {})
    assert {field: getattr(config, field) for field in expected} == expected
    assert family.write_settings(config, settings) == settings
    assert family.written(config).tensors


def count(settings) -> int:
    """Parameters of the library's module, the output projection counted where it is its own."""
    import torch

    config_class, model_class = CLASSES[settings["model_type"]]
    with torch.device("meta"):
        model = model_class(config_class(**settings))
    output = 0 if settings.get("tie_word_embeddings", True) else model.lm_head.weight.numel()
    return sum(p.numel() for n, p in model.named_parameters() if n != "lm_head.weight") + output


@pytest.mark.thorough
@pytest.mark.parametrize("name", MEMBERS)
def test_the_library_counts_as_many(name):
    settings, number = MEMBERS[name]
    assert count(settings) == number


@pytest.mark.parametrize("kind", CLASSES)
def test_every_key_of_the_library_is_known(kind):
    family, settings = FAMILIES[kind], CLASSES[kind][0]().to_dict()
    config = family.read_config(settings_only(**settings)).config
    assert config.source_vocab_size == settings["vocab_size"]
