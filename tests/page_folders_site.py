"""What the commands of the site's first page read."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from published_cases import model, pieces, write_json


def front_page(folder: Path, request: pytest.FixtureRequest) -> None:
    """A folder of Marian's class with its tokenizer, as the library saves both."""
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    place = folder / "Helsinki-NLP/opus-mt-en-de"
    place.mkdir(parents=True)
    for side in ("source", "target"):
        (place / f"{side}.spm").write_bytes(model())
    names = [name for name in pieces(model()) if name not in ("<s>", "</s>", "<unk>")]
    ids = {name: number for number, name in enumerate(["</s>", "<unk>", *names, "<pad>"])}
    write_json(place / "vocab.json", ids)
    files = [str(place / name) for name in ("source.spm", "target.spm", "vocab.json")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses")
        MarianTokenizer(*files, source_lang="en", target_lang="de").save_pretrained(place)
    config = MarianConfig(
        vocab_size=len(ids), pad_token_id=ids["<pad>"], decoder_start_token_id=ids["<pad>"],
        eos_token_id=0, forced_eos_token_id=0, d_model=8, encoder_layers=1, decoder_layers=1,
        encoder_ffn_dim=12, decoder_ffn_dim=12, encoder_attention_heads=2,
        decoder_attention_heads=2, max_position_embeddings=64, activation_function="swish",
        scale_embedding=True,
    )  # fmt: skip
    made = MarianMTModel(config)
    made.generation_config.max_length = 64
    made.save_pretrained(place)
