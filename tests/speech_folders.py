"""A folder with a tiny model of speech of random weights, and the smallest tokenizer there is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from transformer_spec import TransformerConfig, initial_weights

VOCABULARIES = {"english": 51864, "several": 51865}


def speech_config(vocab_size: int) -> TransformerConfig:
    several = vocab_size > 51864
    end = 50256 + several
    return TransformerConfig(
        source_vocab_size=0, target_vocab_size=vocab_size, hidden_dim=4, inner_dim=4, num_heads=1,
        num_encoder_layers=1, num_decoder_layers=1, max_length=448, norm_position="pre",
        activation="gelu", encoder_positions="frozen", decoder_positions="learned",
        sinusoid_layout="concatenated", sinusoid_frequency="i/(d/2-1)", position_offset=0,
        embedding_scale=1.0, output_bias="none", tied_embeddings="target_output", dropout=0.0,
        key_bias=False, feature_dim=80, max_source_length=1500, pad_id=end + 103, unk_id=end,
        bos_id=end, eos_id=end, decoder_start_id=end + 1,
    )  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """A tokenizer.json of bytes alone, 256 pieces."""
    from tokenizers.pre_tokenizers import ByteLevel

    pieces = {piece: index for index, piece in enumerate(sorted(ByteLevel.alphabet()))}
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "model": {"type": "BPE", "vocab": pieces, "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))


def write_speech_folder(folder: Path, kind: str = "english", dtype=np.float32) -> Path:
    """A converted folder."""
    config = speech_config(VOCABULARIES[kind])
    (folder / "vocabulary").mkdir(parents=True)
    write_tokenizer(folder / "vocabulary")
    config.save(folder / "config.json")
    save_file(initial_weights(config, 0, dtype), folder / "model.safetensors")
    return folder
