"""Random Whispers of Hugging Face transformers, saved by the library itself, and their logits.

OpenAI's names are written down apart from the product's, as they are in its model.py.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from huggingface_cases import in_float64
from transformers import WhisperConfig, WhisperForConditionalGeneration

from convert.core.tensors import Held
from convert.families.base import Source
from convert.formats.safetensors import open_safetensors

# Three heads of four, five numbers a frame, fourteen frames.
SIZES = {
    "vocab_size": 97,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "num_mel_bins": 5,
    "max_source_positions": 7,
    "max_target_positions": 11,
    "pad_token_id": 90,
    "bos_token_id": 90,
    "eos_token_id": 90,
    "decoder_start_token_id": 91,
    "begin_suppress_tokens": None,
}
OF_OPENAI = {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
OUTPUT = "proj_out.weight"


def build(tied: bool = True, **changes):
    """A float64 model with every weight random, the table of encoder positions too."""
    config = WhisperConfig(**(SIZES | {"tie_word_embeddings": tied} | changes))
    with in_float64():
        model = WhisperForConditionalGeneration(config).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in sorted(model.named_parameters(), key=lambda pair: pair[0]):
            tensor.normal_(0, 0.3, generator=draw)
            if "layer_norm" in name and name.endswith("weight"):
                tensor.add_(1)
    return model


def heard(seed: int = 0, B: int = 3, T: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Features (B, 14, 5) and ids (B, T) that are words."""
    draw = np.random.default_rng(seed)
    return draw.normal(size=(B, 14, 5)), draw.integers(0, 90, (B, T))


def library_logits(model, features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(B, W, M), (B, T) -> (B, T, V)"""
    with torch.no_grad():
        return model(
            input_features=torch.from_numpy(features).transpose(1, 2),
            decoder_input_ids=torch.from_numpy(target),
            use_cache=False,
        ).logits.numpy()


def saved(model, folder: Path) -> Source:
    """What save_pretrained wrote, as the converter sees it."""
    model.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    return Source(open_safetensors(folder / "model.safetensors"), settings)


def state_of(model) -> dict[str, np.ndarray]:
    """Every name of its state_dict(), the output projection too."""
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def held(arrays: dict[str, np.ndarray], source: Source) -> Source:
    return Source(Held(arrays), source.settings)


def loaded(folder: Path):
    """A folder as the library reads it, nothing missing or left over."""
    with in_float64():
        model, report = WhisperForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float64, output_loading_info=True
        )
    assert not any(report.values()), report
    return model.eval()


def torch_name(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Flax -> PyTorch: kernels of two and of three axes with their axes the other way round."""
    path, _, leaf = name.rpartition(".")
    path = "proj_out" if path == "lm_head" else path
    turned = array.T if leaf == "kernel" else array
    return f"{path}.{'bias' if leaf == 'bias' else 'weight'}", np.ascontiguousarray(turned)


OPENAI_WORDS = [
    (r"^encoder\.positional_embedding$", "encoder.embed_positions.weight"),
    (r"^decoder\.positional_embedding$", "decoder.embed_positions.weight"),
    (r"^decoder\.token_embedding\.", "decoder.embed_tokens."),
    (r"^encoder\.ln_post\.", "encoder.layer_norm."),
    (r"^decoder\.ln\.", "decoder.layer_norm."),
    (r"\.blocks\.", ".layers."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.cross_attn_ln\.", ".encoder_attn_layer_norm."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
    (r"\.attn\.", ".self_attn."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"\.query\.", ".q_proj."),
    (r"\.key\.", ".k_proj."),
    (r"\.value\.", ".v_proj."),
    (r"\.out\.", ".out_proj."),
]


def from_openai(name: str) -> str:
    """OpenAI's name -> that of transformers."""
    for pattern, word in OPENAI_WORDS:
        name = re.sub(pattern, word, name)
    return f"model.{name}"


def openai_names(model) -> dict[str, str]:
    """Name of transformers -> OpenAI's, of all that its file holds."""
    names = {}
    for name in (n for n in model.state_dict() if n != OUTPUT):
        theirs = name.removeprefix("model.")
        for pattern, word in reversed(OPENAI_WORDS):
            back = pattern.replace("\\", "").strip("^$")
            theirs = theirs.replace(word, back) if not word.endswith("weight") else theirs
            theirs = back if theirs == word else theirs
        names[name] = theirs
    return names


def settings_of_dims(dims: dict[str, int]) -> dict[str, int]:
    """config.json's sizes of a file of OpenAI's."""
    D = dims["n_audio_state"]
    assert dims["n_text_state"] == D and dims["n_text_head"] == dims["n_audio_head"]
    heads = dict.fromkeys(
        ("encoder_attention_heads", "decoder_attention_heads"), dims["n_text_head"]
    )
    return heads | {
        "vocab_size": dims["n_vocab"],
        "d_model": D,
        "encoder_layers": dims["n_audio_layer"],
        "decoder_layers": dims["n_text_layer"],
        "encoder_ffn_dim": 4 * D,
        "decoder_ffn_dim": 4 * D,
        "num_mel_bins": dims["n_mels"],
        "max_source_positions": dims["n_audio_ctx"],
        "max_target_positions": dims["n_text_ctx"],
    }


def dims_of(config) -> dict[str, int]:
    """OpenAI's ten sizes of a config of transformers."""
    return {
        "n_mels": config.num_mel_bins,
        "n_vocab": config.vocab_size,
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
    }


def save_openai(model, path: Path, dtype: torch.dtype = torch.float64) -> Path:
    """The file that OpenAI's program loads."""
    names, state = openai_names(model), model.state_dict()
    weights = {theirs: state[name].to(dtype) for name, theirs in names.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": dims_of(model.config), "model_state_dict": weights}, path)
    return path
