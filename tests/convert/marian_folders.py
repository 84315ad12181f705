"""Folders of small Marian models as Hugging Face transformers writes them."""

import json

import numpy as np

from convert.core.tensors import Held
from convert.families.huggingface.marian import Marian
from convert.formats.safetensors import write_safetensors
from transformer_spec import TransformerConfig

CONFIG = TransformerConfig(
    source_vocab_size=11, target_vocab_size=11, hidden_dim=6, inner_dim=7, num_heads=2,
    num_encoder_layers=2, num_decoder_layers=1, max_length=9, sinusoid_layout="concatenated",
    activation="silu", tied_embeddings="all", output_bias="frozen", pad_id=10, eos_id=0, bos_id=0,
    unk_id=1, decoder_start_id=10,
)  # fmt: skip
SHARED, ALIAS = "model.shared.weight", "lm_head.weight"


def marian_weights(dtype=np.float32, seed=0, aliases=()):
    draw = np.random.default_rng(seed)
    headers = Marian().written(CONFIG).tensors
    arrays = {name: draw.normal(size=h.shape).astype(dtype) for name, h in headers.items()}
    return arrays | {alias: arrays[SHARED] for alias in aliases}


def write_marian(folder, arrays):
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", Held(arrays), {"format": "pt"})
    settings = Marian().write_settings(CONFIG, None) | {"num_beams": 4}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder
