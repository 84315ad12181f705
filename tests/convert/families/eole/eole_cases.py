"""Checkpoints of eole: those of OpenNMT-py's reference under the names that eole has."""

import json
import re
from pathlib import Path

import torch
from opennmt_reference import Checkpoint
from safetensors.torch import save_file
from torch import Tensor

SPECIALS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
EMBEDDING = "embeddings.make_embedding"
# As eole's modules call what OpenNMT-py's call otherwise.
PARTS = [
    (r"^encoder\.transformer\.", "encoder.transformer_layers."),
    (r"\.feed_forward\.layer_norm\.", ".post_attention_layernorm."),
    (r"\.feed_forward\.w_1\.", ".mlp.gate_up_proj."),
    (r"\.feed_forward\.w_2\.", ".mlp.down_proj."),
    (r"^(encoder\.transformer_layers\.\d+)\.layer_norm\.", r"\1.input_layernorm."),
    (r"^(decoder\.transformer_layers\.\d+)\.layer_norm_1\.", r"\1.input_layernorm."),
    (r"^(decoder\.transformer_layers\.\d+)\.layer_norm_2\.", r"\1.precontext_layernorm."),
    (rf"^encoder\.{EMBEDDING}\.emb_luts\.0\.", "src_emb.embeddings."),
    (rf"^decoder\.{EMBEDDING}\.emb_luts\.0\.", "tgt_emb.embeddings."),
    (rf"^encoder\.{EMBEDDING}\.pe\.", "src_emb.pe."),
    (rf"^decoder\.{EMBEDDING}\.pe\.", "tgt_emb.pe."),
]


def state_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """What eole saves: tables that are tied once, and a factor of 1 in every decoder layer."""
    state = {}
    for name, tensor in checkpoint.state().items():
        for pattern, mine in PARTS:
            name = re.sub(pattern, mine, name)
        state[name] = tensor.clone()
    for i in range(checkpoint.decoder_layers):
        state[f"decoder.transformer_layers.{i}.layer_scalar"] = torch.ones(1)
    opt = checkpoint.opt()
    if opt["share_embeddings"]:
        del state["tgt_emb.embeddings.weight"]
    if opt["share_decoder_embeddings"]:
        del state["generator.weight"]
    return state


def config_of(checkpoint: Checkpoint) -> dict:
    """config.json, as ``eole train`` leaves it: what was set, and the kinds of the two halves."""
    opt = checkpoint.opt()
    kind = opt["position_encoding_type"] if opt["position_encoding"] else None
    return {
        "data": {"corpus_1": {"path_src": "train.src", "transforms": ["filtertoolong"]}},
        "src_vocab": "vocab.src",
        "tgt_vocab": "vocab.tgt",
        "training": {"dropout": [0.1], "attention_dropout": [0.2], "optim": "adamw"},
        "model": {
            "architecture": "transformer",
            "eole_version": "0.5.3",
            "hidden_size": checkpoint.width,
            "heads": checkpoint.heads,
            "transformer_ff": checkpoint.inner,
            "norm_eps": opt["norm_eps"],
            "mlp_activation_fn": opt["pos_ffn_activation_fn"],
            "add_qkvbias": checkpoint.qkv_bias,
            "add_final_linear_bias": checkpoint.qkv_bias,
            "add_ffnbias": checkpoint.ffn_bias,
            "share_embeddings": opt["share_embeddings"],
            "share_decoder_embeddings": opt["share_decoder_embeddings"],
            "embeddings": {
                "word_vec_size": checkpoint.width,
                "src_word_vec_size": checkpoint.width,
                "tgt_word_vec_size": checkpoint.width,
                "position_encoding_type": kind,
            },
            "encoder": {"encoder_type": "transformer", "layers": checkpoint.encoder_layers},
            "decoder": {
                "decoder_type": "transformer",
                "layers": checkpoint.decoder_layers,
                "with_cross_attn": True,
            },
        },
    }  # fmt: skip


def vocab_of(checkpoint: Checkpoint) -> dict:
    """vocab.json; the padding token has a name of its own here."""
    lists = checkpoint.vocab()
    sides = {s: ["<pad>" if w == "<blank>" else w for w in lists[s]] for s in ("src", "tgt")}
    return {**sides, "decoder_start_token": "<s>", "specials": SPECIALS}


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """A folder of ``eole train``."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of(checkpoint)))
    (folder / "vocab.json").write_text(json.dumps(vocab_of(checkpoint)))
    save_file(state_of(checkpoint), folder / "model.00.safetensors")
    return folder
