"""Random models as fairseq's checkpoints hold them, and the settings beside them."""

import numpy as np
import torch
import transformers
from torch import nn

PAD = 1
HALVES = ("encoder", "decoder")
LENGTH = 16

# The command line of a run with fairseq 0.12.2, without what a case says.
USUAL = {
    "_name": "transformer", "activation_dropout": 0.1, "activation_fn": "relu",
    "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-08, "adaptive_input": False,
    "adaptive_softmax_cutoff": None, "adaptive_softmax_dropout": 0, "all_gather_list_size": 16384,
    "amp": False, "arch": "transformer_wmt_en_de_big", "attention_dropout": 0.2,
    "azureml_logging": False, "base_layers": 0, "batch_size": None, "bpe": None,
    "char_inputs": False, "checkpoint_activations": False, "clip_norm": 0.0, "cpu": False,
    "criterion": "label_smoothed_cross_entropy", "cross_self_attention": False,
    "data": "data-bin/some", "ddp_backend": "legacy_ddp", "decoder_embed_path": None,
    "decoder_layerdrop": 0, "decoder_layers_to_keep": None, "decoder_xformers_att_config": None,
    "device_id": 0, "distributed_world_size": 8, "dropout": 0.3, "encoder_embed_path": None,
    "encoder_layerdrop": 0, "encoder_layers_to_keep": None, "encoder_xformers_att_config": None,
    "eval_bleu": False, "export": False, "fp16": True, "label_smoothing": 0.1,
    "left_pad_source": True, "left_pad_target": False, "lr": [0.0005],
    "lr_scheduler": "inverse_sqrt", "max_source_positions": LENGTH, "max_target_positions": LENGTH,
    "max_tokens": 4096, "max_update": 100000, "min_params_to_wrap": 100000000,
    "no_cross_attention": False, "no_decoder_final_norm": False, "offload_activations": False,
    "optimizer": "adam", "patience": -1, "quant_noise_pq": 0.0, "quant_noise_pq_block_size": 8,
    "quant_noise_scalar": 0.0, "relu_dropout": 0.0, "save_dir": "checkpoints", "seed": 1,
    "source_lang": "de", "target_lang": "en", "task": "translation", "tie_adaptive_proj": False,
    "tie_adaptive_weights": False, "update_freq": [1], "upsample_primary": -1, "user_dir": None,
    "warmup_updates": 4000, "weight_decay": 0.0001,
}  # fmt: skip


def settings_of(model, **more) -> dict:
    """What fairseq would say of a model of transformers."""
    config, halves = model.config, HALVES
    kind = config.model_type
    sizes = {
        **{f"{half}_embed_dim": config.d_model for half in halves},
        **{f"{half}_ffn_embed_dim": config.encoder_ffn_dim for half in halves},
        **{f"{half}_attention_heads": config.encoder_attention_heads for half in halves},
        "decoder_input_dim": config.d_model,
        "decoder_output_dim": config.d_model,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
    }
    kinds = {
        **{f"{half}_normalize_before": kind != "bart" for half in halves},
        **{f"{half}_learned_pos": kind != "m2m_100" for half in halves},
        "layernorm_embedding": kind != "m2m_100",
        "no_scale_embedding": not config.scale_embedding,
        "no_token_positional_embeddings": False,
        "share_all_embeddings": True,
        "share_decoder_input_output_embed": True,
        "activation_fn": {"gelu_new": "gelu_accurate", "silu": "swish"}.get(
            config.activation_function, config.activation_function
        ),
    }
    return USUAL | sizes | kinds | more


def m2m100(**changed):
    """Pre-norm, sinusoids of tensor2tensor after the padding row, counted without padding."""
    config = transformers.M2M100Config(**(sizes(15, 3) | {"activation_function": "relu"} | changed))
    model = randomised(transformers.M2M100ForConditionalGeneration(config))
    table = torch.from_numpy(positions(LENGTH + 2, config.d_model))
    for half in (model.model.encoder, model.model.decoder):
        half.embed_positions.weights = table
    return model


def bart(**changed):
    """Post-norm, learned positions, a norm of embeddings."""
    config = transformers.BartConfig(**(sizes(14, 2) | {"activation_function": "gelu"} | changed))
    return randomised(transformers.BartForConditionalGeneration(config))


def mbart(**changed):
    """Pre-norm, learned positions, norms of embeddings and after the last layer."""
    config = transformers.MBartConfig(**(sizes(15, 5) | {"activation_function": "gelu"} | changed))
    return randomised(transformers.MBartForConditionalGeneration(config))


def vaswani(**changed):
    """Post-norm with sinusoids: fairseq's most usual transformer, in BART's class."""
    model = bart(**({"activation_function": "relu"} | changed))
    for half in (model.model.encoder, model.model.decoder):
        half.layernorm_embedding = nn.Identity()
        half.embed_positions.weight.data = torch.from_numpy(
            positions(LENGTH + 2, model.config.d_model)
        )
    return model


def without_positions(model):
    """A model whose table of positions adds nothing."""
    for half in (model.model.encoder, model.model.decoder):
        half.embed_positions.weights = torch.zeros_like(half.embed_positions.weights)
    return model


def sizes(width: int, heads: int) -> dict:
    return {
        "vocab_size": 19,
        "d_model": width,
        "encoder_ffn_dim": 11,
        "decoder_ffn_dim": 11,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "max_position_embeddings": LENGTH,
        "pad_token_id": PAD,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "forced_eos_token_id": 2,
        "decoder_start_token_id": 2,
        "scale_embedding": True,
        "attn_implementation": "eager",
    }


def positions(rows: int, width: int) -> np.ndarray:
    """As fairseq's get_embedding computes, in float64; the padding row is zero."""
    half = width // 2
    angles = np.arange(rows)[:, None] * np.exp(np.arange(half) * -np.log(10000.0) / (half - 1))
    table = np.concatenate([np.sin(angles), np.cos(angles), np.zeros((rows, width % 2))], 1)
    table[PAD] = 0
    return table


def randomised(model):
    """Every parameter random, biases and norms included; float32's values in float64."""
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4, generator=draw)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.add_(1)
    return model.double().eval()


def untied(model):
    """The model with three tables of its own."""
    draw = torch.Generator().manual_seed(5)
    words, width = model.config.vocab_size, model.config.d_model
    for module in (
        model.model.encoder.embed_tokens,
        model.model.decoder.embed_tokens,
        model.lm_head,
    ):
        table = 0.4 * torch.randn(words, width, generator=draw)
        module.weight = nn.Parameter(table.double())
    return model


def state_of(model, sinusoidal: bool) -> dict[str, np.ndarray]:
    """Its weights under the names of fairseq 0.12, float32."""
    named = dict(model.model.encoder.named_parameters(prefix="encoder"))
    named |= model.model.decoder.named_parameters(prefix="decoder")
    named["encoder.embed_tokens.weight"] = model.model.encoder.embed_tokens.weight
    named["decoder.embed_tokens.weight"] = model.model.decoder.embed_tokens.weight
    named["decoder.output_projection.weight"] = model.lm_head.weight
    if sinusoidal:
        named = {name: p for name, p in named.items() if "embed_positions" not in name}
    state = {name: p.detach().numpy().astype(np.float32) for name, p in named.items()}
    for half in HALVES:
        state[f"{half}.version"] = np.array([3], np.float32)
        if f"{half}.embed_positions.weight" not in state:
            state[f"{half}.embed_positions._float_tensor"] = np.array([0.5], np.float32)
    return state


def legacy(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under names of 2018: numbered norms, q, k and v in one, tied once."""
    old = dict(state)
    norms = {"self_attn_layer_norm": 0, "encoder_attn_layer_norm": 1, "final_layer_norm": 2}
    for name in state:
        module, _, leaf = name.rpartition(".")
        layer, _, part = module.rpartition(".")
        if part in norms:
            number = 1 if (part, name[:3]) == ("final_layer_norm", "enc") else norms[part]
            old[f"{layer}.layer_norms.{number}.{leaf}"] = old.pop(name)
        if part == "q_proj":
            rows = [old.pop(f"{layer}.{x}_proj.{leaf}") for x in "qkv"]
            old[f"{layer}.in_proj_{leaf}"] = np.concatenate(rows)
    for half in HALVES:
        weights = f"{half}.embed_positions.weights"
        if f"{half}.embed_positions._float_tensor" in old:
            del old[f"{half}.embed_positions._float_tensor"]
            width = state[f"{half}.embed_tokens.weight"].shape[1]
            old[weights] = positions(LENGTH + 2, width).astype(np.float32)
    if np.array_equal(old["decoder.output_projection.weight"], old["decoder.embed_tokens.weight"]):
        del old["decoder.output_projection.weight"]
    else:
        old["decoder.embed_out"] = old.pop("decoder.output_projection.weight")
    return old


def with_copies(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With the parameters that 0.12 adds to encoder layers, as zeros: no training moves them."""
    copies = {}
    for name, array in state.items():
        layer, _, part = name.partition(".self_attn.out_proj.")
        if name.startswith("encoder.layers.") and part:
            copies[f"{layer}.out_proj_{part}"] = np.zeros_like(array)
            copies[f"{layer}.in_proj_{part}"] = np.zeros((3 * len(array), *array.shape[1:]), "f4")
            for fc in ("fc1", "fc2"):
                copies[f"{layer}.{fc}_{part}"] = np.zeros_like(state[f"{layer}.{fc}.{part}"])
    return state | copies


def logits_of(model, source_ids: np.ndarray, target_ids: np.ndarray) -> np.ndarray:
    """Logits (B, T, V) of the library's model in float64."""
    with torch.no_grad():
        return model(
            input_ids=torch.from_numpy(source_ids),
            attention_mask=torch.from_numpy((source_ids != PAD).astype(np.int64)),
            decoder_input_ids=torch.from_numpy(target_ids),
            decoder_attention_mask=torch.from_numpy((target_ids != PAD).astype(np.int64)),
            use_cache=False,
        ).logits.numpy()
