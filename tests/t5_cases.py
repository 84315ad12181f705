"""Random models of T5's classes, saved by the library itself, and their logits.

The classes' norms compute in float32 even in a float64 model: here in float64. Version 5 computes
UMT5 with a factor of 1/sqrt(D) on its output, and mT5 without one, whatever a file says: where a
model is computed otherwise, its logits are multiplied by the quotient, which is exact.
"""

import contextlib
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from huggingface_cases import in_float64, saved
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from convert.families.base import Source
from convert.families.registry import FAMILIES
from transformer_spec import TransformerConfig

CLASSES = {
    "t5": (T5Config, T5ForConditionalGeneration),
    "mt5": (MT5Config, MT5ForConditionalGeneration),
    "umt5": (UMT5Config, UMT5ForConditionalGeneration),
}
# Three heads of five in a width of 13; distances up to 28 in 8 buckets that end at 20.
SIZES = {
    "vocab_size": 31,
    "d_model": 13,
    "d_kv": 5,
    "num_heads": 3,
    "d_ff": 17,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
}
SCALED = SIZES["d_model"] ** -0.5


def build(kind: str, own_output: bool, **changes):
    """A model with every weight random; the output projection is the table unless it is its own."""
    config_class, model_class = CLASSES[kind]
    with in_float64():
        model = model_class(config_class(**(SIZES | changes))).eval()
    if own_output:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters(), key=lambda pair: pair[0]):
            tensor.normal_(0, 0.4, generator=draw)
            if "layer_norm" in name:
                tensor.add_(1)
    return model


def saved_t5(model, folder: Path, flags=None, **settings) -> Source:
    """What save_pretrained wrote, with settings as another version has them; None: no such key."""
    source = saved(model, folder, flags)
    told = {**(source.settings or {}), **settings}
    return Source(source.tensors, {k: v for k, v in told.items() if v is not None}, flags or {})


@contextlib.contextmanager
def wide_norms():
    with in_float64(), mock.patch.object(torch, "float32", torch.float64):
        yield


def batch() -> tuple[np.ndarray, np.ndarray]:
    """(source, target) longer than the farthest bucket, padded on the right and on the left."""
    draw = np.random.default_rng(1)
    source, target = draw.integers(3, 31, (3, 29)), draw.integers(3, 31, (3, 26))
    source[1, 22:] = source[2, :5] = target[1, 17:] = 0
    target[:, 0] = 0
    return source, target


def t5_logits(model, source: np.ndarray, target: np.ndarray, output_scale: float) -> np.ndarray:
    """The library's logits, as they are with this factor on the output."""
    pad = model.config.pad_token_id
    seen = target != pad
    seen[:, 0] = True
    with torch.no_grad(), wide_norms():
        logits = model(
            input_ids=torch.from_numpy(source),
            attention_mask=torch.from_numpy(source != pad).long(),
            decoder_input_ids=torch.from_numpy(target),
            decoder_attention_mask=torch.from_numpy(seen).long(),
        ).logits.numpy()
    return logits * (output_scale / used_scale(model))


def used_scale(model) -> float:
    """The factor that version 5 of the library puts on the output."""
    scaled = model.config.d_model**-0.5
    always = {"umt5": scaled, "mt5": 1.0}
    usual = scaled if getattr(model.config, "scale_decoder_outputs", True) else 1.0
    return always.get(model.config.model_type, usual)


def flax_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch names and arrays as the Flax modules have them: Embed, T5's norms, Dense."""
    found = {}
    for name, array in arrays.items():
        path = name.removesuffix(".weight")
        if path.endswith("layer_norm"):
            found[name] = array
        elif path.endswith(("shared", "relative_attention_bias")):
            found[f"{path}.embedding"] = array
        else:
            found[f"{path}.kernel"] = np.ascontiguousarray(array.T)
    return found


def torch_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """``flax_arrays`` the other way; PyTorch names stay as they are."""
    found = {}
    for name, array in arrays.items():
        path, _, leaf = name.rpartition(".")
        turned = array.T if leaf == "kernel" else array
        found[f"{path}.weight"] = np.ascontiguousarray(turned)
    return found


def our_t5(name: str, **changes) -> TransformerConfig:
    """A config of ours that a class holds: one table for all and the first T5's factor."""
    family = FAMILIES[name]
    rates = {"attention_dropout": 0.1, "activation_dropout": 0.1, "final_dropout": 0.1}
    sizes = {
        "source_vocab_size": 31,
        "target_vocab_size": 31,
        "hidden_dim": 13,
        "inner_dim": 17,
        "num_heads": 3,
        "head_dim": 5,
        "num_encoder_layers": 2,
        "num_decoder_layers": 3,
        "max_length": 32,
        "relative_buckets": 8,
        "relative_max_distance": 20,
        "norm_epsilon": 1e-6,
        "eos_id": 1,
        "unk_id": 2,
        "bos_id": 0,
        "decoder_start_id": 0,
        "tied_embeddings": "all",
        "output_scale": SCALED,
        "gated_ffn": family.feed_forward.startswith("gated"),
        "activation": "gelu_tanh" if family.feed_forward.startswith("gated") else "relu",
    }
    return TransformerConfig(**(sizes | rates | dict(family.fields) | changes))
